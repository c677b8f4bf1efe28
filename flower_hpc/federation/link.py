"""How this machine's processes reach the SuperLink: by TCP, or a UNIX socket into its network."""

import hashlib
import os
import ssl
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from socket import AF_UNIX, socket

from ..errors import FederationError, LaunchError
from ..launchers.filling import PYTHON
from ..launchers.ports import family, join
from ..network.namespace import can_enclose
from .config import FederationConfig
from .leftovers import shared_host
from .state import StateDir, read_json, write_json

ENCLOSED = (PYTHON, "-m", "flower_hpc.network.enclosed")
ANSWER_S = 2.0


@dataclass(frozen=True)
class Link:
    """The SuperLink's place.

    Parameters
    ----------
    host, port : str, int
        Where it listens, in its own network.
    path : Path, optional
        The UNIX socket that leads there; None where it is on this host's network, or far away.
    far : str
        ``tls:HOST:PORT`` where it is on another host, which lets in who has the federation's own certificate.
    folder : Path, optional
        With that certificate: ``ca.pem``, ``owner.pem`` and ``owner.key``.
    """

    host: str
    port: int
    path: Path | None = None
    far: str = ""
    folder: Path | None = None

    @property
    def address(self) -> str:
        """host:port, as Flower's commands are told."""
        return join(self.host, self.port)

    @property
    def endpoint(self) -> str:
        """The same in the words of forwards."""
        if self.far:
            return self.far
        return f"tcp:{self.address}" if self.path is None else f"unix:{self.path}"

    @property
    def private(self) -> bool:
        """Whether it is in a network of its own."""
        return bool(self.far) or self.path is not None

    def inside(self, command: Sequence[str]) -> list[str]:
        """``command``, so started that it reaches the SuperLink at :attr:`address`."""
        if not self.private:
            return list(command)
        proof: list[str] = []
        if self.far and self.folder is not None:
            files = {"--ca": "ca.pem", "--cert": "owner.pem", "--key": "owner.key"}
            proof = [word for key, name in files.items() for word in (key, str(self.folder / name))]
            proof += ["--tls-name", "localhost"]
        return [*ENCLOSED, *proof, "--out", f"{self.address}={self.endpoint}", "--", *command]

    def answers(self, ca: Path | None) -> bool:
        """Whether it does: by a handshake under our own CA, since a stranger may have taken the port."""
        try:
            with self._dial() as raw:
                if ca is None:
                    return True
                context = ssl.create_default_context(cafile=str(ca))
                with context.wrap_socket(raw, server_hostname=self.host):
                    return True
        except OSError:
            return False

    def _dial(self) -> socket:
        kind = family(self.host) if self.path is None else AF_UNIX
        raw = socket(kind)
        raw.settimeout(ANSWER_S)
        try:
            raw.connect((self.host, self.port) if self.path is None else str(self.path))
        except BaseException:
            raw.close()
            raise
        return raw

    def write(self, state: StateDir) -> None:
        """Note it for the commands."""
        path, folder = (None if one is None else str(one) for one in (self.path, self.folder))
        noted = {"host": self.host, "port": self.port, "socket": path, "far": self.far, "folder": folder}
        write_json(state.link, noted)

    @classmethod
    def read(cls, state: StateDir) -> "Link | None":
        """What was noted; None where nothing was, or where it is damaged."""
        try:
            data = read_json(state.link)
            path, folder = (None if data[key] is None else Path(data[key]) for key in ("socket", "folder"))
            return cls(str(data["host"]), int(data["port"]), path, str(data["far"]), folder)
        except (FederationError, KeyError, TypeError, ValueError):
            return None


def why_refused(config: FederationConfig) -> str | None:
    """Why the SuperLink may not live on this host as the file says; None where it may."""
    reason = can_enclose()
    if config.link_elsewhere:
        words = "superlink.launcher: got 'slurm', must be local here: no private network can be had for what"
        return None if reason is None else f"{words} leads to it ({reason})"
    if config.security.network == "private" and reason is not None:
        return f"security.network: got 'private', must be host or auto here: {reason}"
    on_host = not wants_private(config)
    if not config.tls and not on_host and any(s.network == "host" or s.mpi for s in config.sites.values()):
        words = "must be tls where nodes are on the network of this host, as those with mpi are"
        return f"security.mode: got 'insecure', {words}"
    if on_host and shared_host() and config.security.shared_host == "refuse":
        why = "network: host was asked for" if config.security.network == "host" else reason
        return (
            "security.shared_host: got 'refuse', must be accept here: other people use this host, whoever "
            f"finds the SuperLink's port can have code run as you, and no network of its own hides it ({why})"
        )
    return None


def wants_private(config: FederationConfig) -> bool:
    """Whether the SuperLink gets a network of its own."""
    wish = config.security.network
    if wish == "auto":
        return (config.remote or shared_host()) and can_enclose() is None
    return wish == "private"


def socket_path(state: StateDir) -> Path:
    """Where the socket lies: paths of sockets are short, those of state folders may be long."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(base) / "flower-hpc" if base else Path(f"/tmp/flower-hpc-{os.getuid()}")
    return folder / f"{hashlib.sha256(str(state.path).encode()).hexdigest()[:12]}.sock"


def make_private(folder: Path) -> None:
    """Make a folder that nobody else may enter.

    Raises
    ------
    LaunchError
        It cannot be made, or what is there belongs to someone else, or lets others in.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise LaunchError(f"{folder} cannot be made: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise LaunchError(f"{folder} must be a folder of yours that nobody else may enter")
