"""What lets nodes beyond this machine in: the gateway, relays, and files that tell sites of them."""

import logging
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

from ..clock import WALL
from ..errors import LaunchError
from ..launchers import JobSpec, Launcher
from ..launchers.filling import read_door
from ..launchers.pilot import DOWN
from ..launchers.ports import family, free_port, join, why_not
from .config import FederationConfig
from .identity import write_private
from .jobs import gateway_job, network_of, relay_job, site_folder
from .keeper import Keeper
from .link import Link
from .site import CloudSite, Site
from .state import StateDir, read_json, write_json
from .status import NodeState

log = logging.getLogger(__name__)

ANSWER_S = 1.0
LOOK_S = 2.0


class Door:
    """Keeps a gateway, and a relay for each site that asks for one, while there are nodes that need them.

    A site's nodes read the file ``door`` in its folder, and follow where it leads.
    """

    def __init__(self, config: FederationConfig, state: StateDir, launcher: Launcher) -> None:
        self._state, self._launcher = state, launcher
        self._ports: dict[str, int] = read_json(state.path / "ports.json") or {}
        self.keepers: dict[str, Keeper] = {}
        self.config = config
        self._looked = -LOOK_S
        self._is_needed, self._elsewhere = True, ""
        self._relayed: dict[str, str] = {}

    @property
    def here(self) -> str:
        """The gateway's endpoint for nodes of this machine."""
        return self._elsewhere or f"tcp:{join(self._near(), self._port('gateway'))}"

    def tick(self, link: Link, start: Callable[[Keeper], None], elsewhere: str = "") -> None:
        """Have ``start`` start what is needed, once the SuperLink is online, and tell the sites.

        ``elsewhere`` is the endpoint of a gateway that another host has, beside the SuperLink.
        """
        self._elsewhere = elsewhere
        if needs_gateway(self.config, link):
            self._keep("gateway", lambda: self._gateway(link))
        self._is_needed = needs_gateway(self.config, link)
        look = WALL.now() - self._looked > LOOK_S
        self._looked = WALL.now() if look else self._looked
        for name, site in self.config.sites.items():
            if site.remote and look:
                self._open(name, site)
        for keeper in self.keepers.values():
            if keeper.stopped:
                start(keeper)
            keeper.tick()

    def _gateway(self, link: Link) -> JobSpec:
        return gateway_job(self.config, self._state, self._port("gateway"), link.endpoint)

    def names(self) -> list[str]:
        """Of what it keeps, or will keep."""
        return ["gateway", *(f"relay-{site}" for site in self.config.sites)]

    @property
    def is_open(self) -> bool:
        """Whether all of it is online, or nothing is needed."""
        return (bool(self.keepers) or not self._is_needed) and all(
            keeper.state is NodeState.ONLINE for keeper in self.keepers.values()
        )

    def _open(self, name: str, site: Site) -> None:
        if not getattr(site, "relay", False):
            self._tell(name, f"tcp:{getattr(site, 'via', None) or self._upstream()}")
        else:
            self._forward(name)

    def _forward(self, site: str) -> None:
        name, upstream = f"relay-{site}", self._upstream()
        self._keep(name, lambda: self._relay(site))
        if self._relayed.setdefault(site, upstream) != upstream:  # the SuperLink has moved to another host
            self._relayed[site] = upstream
            self.keepers[name].restart()
        self._tell(site, f"tcp:{join(self._address(), self._port(name))}")

    def _relay(self, site: str) -> JobSpec:
        listen = join(self.config.gateway.host, self._port(f"relay-{site}"))
        return relay_job(site, self._state, listen, self._upstream())

    def _upstream(self) -> str:
        return self._elsewhere.removeprefix("tcp:") or join(self._address(), self._port("gateway"))

    def _address(self) -> str:
        return self.config.gateway.address or socket.gethostname()

    def _tell(self, site: str, words: str) -> None:
        folder = site_folder(self.config, site, self._state)
        try:
            if read_door(folder / "door") != words:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_private(folder / "door", words.encode(), 0o600)
        except OSError as error:  # its nodes' starts tell of it
            log.warning("sites.%s: %s: %s", site, error.filename or folder, error.strerror)

    def _port(self, name: str) -> int:
        if name == "gateway" and self.config.gateway.port is not None:
            return self.config.gateway.port
        if name not in self._ports:
            self._ports[name] = free_port(self.config.gateway.host, set(self._ports.values()))
            write_json(self._state.path / "ports.json", self._ports)
        return self._ports[name]

    def _keep(self, name: str, make_spec: Callable[[], JobSpec]) -> None:
        if name not in self.keepers:
            online, prepare = (lambda job: self._answers(name)), (lambda: self._move(name))
            self.keepers[name] = Keeper(name, self._launcher, make_spec, online, prepare=prepare)

    def _move(self, name: str) -> None:
        # before a start: a port that someone else has taken meanwhile is given up, and the sites are told
        if why_not(self.config.gateway.host, self._port(name)) and self.config.gateway.port is None:
            del self._ports[name]

    def _answers(self, name: str) -> bool:
        host, port = self._near(), self._port(name)
        with socket.socket(family(host)) as raw:
            raw.settimeout(ANSWER_S)
            return raw.connect_ex((host, port)) == 0

    def _near(self) -> str:
        host = self.config.gateway.host
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def needs_gateway(config: FederationConfig, link: Link) -> bool:
    """Whether there are nodes beyond this machine, or on its network while the SuperLink is not."""
    beside = link.private and any(network_of(site, link) == "host" for site in config.sites.values())
    return not link.far and (config.remote or beside)


def furnish(config: FederationConfig, state: StateDir, site: str, name: str) -> None:
    """Make a site's folder on the shared disk, with what a node needs: the CA and its own key.

    Raises
    ------
    LaunchError
        It cannot be written; in one line.
    """
    folder = site_folder(config, site, state)
    files = {"ca.pem": state.ca, f"keys/{name}": state.keys / name}
    write_shared(folder, files, f"sites.{site}")
    try:
        for part in ("nodes", "logs"):
            (folder / part).mkdir(mode=0o700, exist_ok=True)
        (folder / "nodes" / DOWN).unlink(missing_ok=True)
        if not isinstance(config.sites[site], CloudSite):
            _lead_to(state.log(name), folder / "logs" / f"{name}.log")
    except OSError as error:
        raise _unwritable(f"sites.{site}", folder, error) from error


def write_shared(folder: Path, files: Mapping[str, Path], what: str) -> None:
    """Copy files to a folder on the shared disk, for this user alone.

    Raises
    ------
    LaunchError
        It cannot be written; in one line that begins with ``what``.
    """
    try:
        for name, source in files.items():
            target = folder / name
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(target, source.read_bytes(), 0o600)
    except OSError as error:
        raise _unwritable(what, folder, error) from error


def _unwritable(what: str, folder: Path, error: OSError) -> LaunchError:
    return LaunchError(f"{what}: shared folder {folder} cannot be written: {error.strerror or error}")


def _lead_to(log: Path, where: Path) -> None:
    # `logs` looks where the logs of this machine are
    if log.is_symlink() and log.readlink() == where:
        return
    log.unlink(missing_ok=True)
    log.symlink_to(where)


def take_down(config: FederationConfig, state: StateDir) -> None:
    """Tell pilots that nobody waits for their work any more."""
    for name, site in config.sites.items():
        folder = site_folder(config, name, state) / "nodes"
        try:
            if site.remote and folder.is_dir():
                (folder / DOWN).touch()
        except OSError as error:  # then they hand their work in, for nobody
            log.warning("sites.%s: %s: %s", name, folder, error.strerror)
