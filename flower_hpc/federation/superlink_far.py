"""A SuperLink that is a job of a batch system, as the controller sees it."""

import socket
from pathlib import Path

from ..launchers import JobSpec, Launcher
from .config import FederationConfig
from .door import write_shared
from .identity import ensure_owner
from .keeper import Keeper
from .link import Link
from .link_host import LINK
from .state import StateDir, read_json
from .superlink import tell_flwr
from .superlink_jobs import far_superlink_job

ANSWER_S = 1.0


class FarSuperLink:
    """Keeps the job, and follows it to the host where it has come to live.

    Its disk does not last: each new one is told anew of all nodes.
    """

    def __init__(self, config: FederationConfig, state: StateDir, launcher: Launcher, folder: Path) -> None:
        self._config, self._state, self._folder = config, state, folder
        self.link = Link.read(state) or Link("127.0.0.1", 0, far="tls:nowhere:1", folder=state.path)
        self.gateway = ""
        self.keeper = Keeper("superlink", launcher, self._spec, self._answers, prepare=self._prepare)

    @property
    def address(self) -> str:
        """host:port, as Flower's commands are told; the host is in :attr:`link`."""
        return self.link.address

    def _spec(self) -> JobSpec:
        return far_superlink_job(self._config, self._state, self._folder)

    def _prepare(self) -> None:
        ensure_owner(self._state)
        names = ("ca.pem", "superlink.pem", "superlink.key")
        write_shared(self._folder, {name: self._state.path / name for name in names}, "superlink")
        (self._folder / LINK).unlink(missing_ok=True)

    def _answers(self, job: str) -> bool:
        found = read_json(self._folder / LINK)
        if not found:
            return False
        host, control, gateway = str(found["host"]), int(found["control"]), int(found["gateway"])
        try:
            with socket.create_connection((host, gateway), ANSWER_S):
                pass
        except OSError:
            return False
        self.gateway = f"tcp:{host}:{gateway}"
        self.link = Link(
            "127.0.0.1", int(found["port"]), far=f"tls:{host}:{control}", folder=self._state.path
        )
        self.link.write(self._state)
        tell_flwr(self._config, self._state, self.address)
        return True
