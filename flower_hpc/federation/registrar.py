"""Has nodes registered with the SuperLink, in the background, without holding the controller up."""

import logging
from collections.abc import Iterator

from ..clock import WALL
from ..errors import FederationError, LaunchError
from ..launchers import JobState, Launcher
from ..launchers.supernode_log import last_line
from .jobs import registration_job
from .keeper import FAILED_AFTER
from .link import Link
from .state import StateDir, read_json

log = logging.getLogger(__name__)

RETRY_S = 3.0


class Registrar:
    """At most one registration process at a time; what it has done waits in :meth:`results`."""

    def __init__(self, connection: str, state: StateDir, launcher: Launcher) -> None:
        self._connection, self._state, self._launcher = connection, state, launcher
        self._job: str | None = None
        self._due = WALL.now()
        self._done: dict[str, int | None] = {}
        self._failures = 0

    @property
    def failed(self) -> bool:
        """True after three refusals in a row; it is still tried again."""
        return self._failures >= FAILED_AFTER

    def tick(self, names: list[str], link: Link) -> None:
        """Start a process for ``names``, or collect what the last one did."""
        if self._job is not None:
            state = self._launcher.status(self._job).state
            if state.final:
                self._collect(self._job, state)
        elif names and WALL.now() >= self._due:
            self._state.registered.unlink(missing_ok=True)
            try:
                self._job = self._launcher.submit(
                    registration_job(names, self._connection, self._state, link)
                )
            except LaunchError as error:
                log.error("%s", error)
                self._due = WALL.now() + RETRY_S

    def results(self) -> Iterator[tuple[str, int | None]]:
        """Names that the SuperLink knows now, each once, with node ids where it told them."""
        while self._done:
            yield self._done.popitem()

    def stop(self) -> None:
        """End the process, where there is one."""
        if self._job is not None:
            self._launcher.cancel(self._job, force=True)

    def _collect(self, job: str, state: JobState) -> None:
        self._job = None
        try:
            self._done.update(read_json(self._state.registered) or {})
        except FederationError as error:
            log.error("%s", error)
        self._failures = 0 if state is JobState.SUCCEEDED else self._failures + 1
        if self._failures:
            log.error("registration failed: %s", last_line(self._launcher.logs(job)))
            self._due = WALL.now() + RETRY_S
