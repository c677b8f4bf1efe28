"""The SuperLink as the controller sees it: where it listens, and whether it answers."""

import socket
import ssl

from ..errors import ConfigError
from ..launchers import JobSpec, Launcher
from .config import FederationConfig
from .jobs import connection_toml, superlink_job
from .keeper import Keeper
from .ports import family, free_port, join, why_not
from .state import StateDir

ANSWER_S = 2.0


class SuperLink:
    """Keeps a SuperLink on one port, and moves it where the port was lost to someone else.

    Nodes follow by themselves: the address is part of what decides how they are started.
    """

    def __init__(self, config: FederationConfig, state: StateDir, launcher: Launcher) -> None:
        self._config, self._state = config, state
        self.host = config.superlink.host
        self.port = config.superlink.port or free_port(self.host)
        self.keeper = Keeper("superlink", launcher, self._spec, self._answers)

    @property
    def address(self) -> str:
        """host:port."""
        return join(self.host, self.port)

    def _spec(self) -> JobSpec:
        if self._config.superlink.port is None and why_not(self.host, self.port):
            self.port = free_port(self.host)
        text = connection_toml(self._config, self._state, self.address)
        part = self._state.flwr / "config.toml.part"
        part.write_text(text, encoding="utf-8")
        part.replace(self._state.flwr / "config.toml")
        return superlink_job(self._config, self._state, self.port)

    def _answers(self, job: str) -> bool:
        # a handshake under our own CA: a stranger who took the port does not pass for it
        try:
            with socket.socket(family(self.host)) as raw:
                raw.settimeout(ANSWER_S)
                raw.connect((self.host, self.port))
                if self._config.security == "tls":
                    context = ssl.create_default_context(cafile=str(self._state.ca))
                    with context.wrap_socket(raw, server_hostname=self.host):
                        return True
        except OSError:
            return False
        return "Uvicorn running on" in self.keeper.launcher.logs(job)


def check_port(config: FederationConfig) -> None:
    """Refuse a configured port that cannot be listened on; ConfigError in one line."""
    host, port = config.superlink.host, config.superlink.port
    reason = None if port is None else why_not(host, port)
    if port is not None and reason is not None:
        words = "is taken" if reason == "taken" else f"cannot be used ({reason})"
        raise ConfigError(f"superlink.port: {port} {words} on {host}, must be free, or null to find one")
