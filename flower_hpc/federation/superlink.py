"""The SuperLink as the controller sees it: where it listens, and whether it answers."""

from ..errors import ConfigError
from ..launchers import JobSpec, Launcher
from ..launchers.ports import free_port, why_not
from .config import FederationConfig
from .jobs import connection_toml
from .keeper import Keeper
from .link import Link, make_private, socket_path, wants_private
from .state import StateDir
from .superlink_jobs import superlink_job


class SuperLink:
    """Keeps a SuperLink on one port, and moves it where the port was lost to someone else.

    Nodes follow by themselves: the address is part of what decides how they are started.
    """

    def __init__(self, config: FederationConfig, state: StateDir, launcher: Launcher) -> None:
        self._config, self._state = config, state
        host, old = config.superlink.host, Link.read(state)
        # the port of before, which a SuperLink that outlived its controller still has
        port = config.superlink.port or (old.port if old is not None and not old.far else free_port(host))
        self.link = Link(host, port, socket_path(state) if wants_private(config) else None)
        self.gateway = ""
        """The endpoint of a gateway beside it; empty where the controller keeps one."""
        self.keeper = Keeper("superlink", launcher, self._spec, self._answers, prepare=self._prepare)

    @property
    def address(self) -> str:
        """host:port."""
        return self.link.address

    def _spec(self) -> JobSpec:
        return superlink_job(self._config, self._state, self.link.port, self.link.path)

    def _prepare(self) -> None:
        # a port that someone else has taken meanwhile is given up
        link = self.link
        if link.path is not None:
            make_private(link.path.parent)
        if link.path is None and self._config.superlink.port is None and why_not(link.host, link.port):
            self.link = Link(link.host, free_port(link.host))
        self._note()

    def _note(self) -> None:
        self.link.write(self._state)
        tell_flwr(self._config, self._state, self.address)

    def _answers(self, job: str) -> bool:
        if not self.link.answers(self._state.ca if self._config.tls else None):
            return False
        return self._config.tls or "Uvicorn running on" in self.keeper.launcher.logs(job)


def tell_flwr(config: FederationConfig, state: StateDir, address: str) -> None:
    """Write the connection that Flower's own commands use."""
    part = state.flwr / "config.toml.part"
    part.write_text(connection_toml(config, state, address), encoding="utf-8")
    part.replace(state.flwr / "config.toml")


def check_port(config: FederationConfig) -> None:
    """Refuse a configured port that cannot be listened on; ConfigError in one line."""
    host, port = config.superlink.host, config.superlink.port
    reason = None if port is None or wants_private(config) else why_not(host, port)
    if port is not None and reason is not None:
        words = "is taken" if reason == "taken" else f"cannot be used ({reason})"
        raise ConfigError(f"superlink.port: {port} {words} on {host}, must be free, or null to find one")
