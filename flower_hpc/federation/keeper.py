"""One job that is kept alive: submitted, watched, submitted again after a back-off when it ends."""

import logging
import re
from collections.abc import Callable

from ..clock import WALL, Clock
from ..errors import LaunchError
from ..launchers import JobSpec, Launcher
from .status import NodeState

log = logging.getLogger(__name__)

FIRST_S, LAST_S = 1.0, 60.0
STABLE_S = 60.0
STOP_S = 5.0
HELD_S, HELD_AT_MOST_S = 5.0, 120.0
FAILED_AFTER = 3
ERROR = re.compile(r"\bERROR\b|[A-Za-z]Error\b|^error\b")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# Flower's words, in lower case, where the SuperLink believes the killed predecessor alive
HELD = ("already connected", "failed to activate")


class Keeper:
    """Keeps one job alive.

    Parameters
    ----------
    name : str
        For the log.
    launcher : Launcher
        Where it runs.
    make_spec : callable
        Called before each start, so that each gets a port that is free then.
    is_online : callable
        Whether the job, of the given id, does its work.
    clock : Clock
        Default: the wall clock.

    Notes
    -----
    Back-off is 1, 2, 4 ... 60 s, and starts again at 1 s after a minute online. A start that was refused
    because the SuperLink believes the killed predecessor alive (up to 60 s) is repeated every 5 s.
    """

    def __init__(
        self,
        name: str,
        launcher: Launcher,
        make_spec: Callable[[], JobSpec],
        is_online: Callable[[str], bool],
        clock: Clock = WALL,
    ) -> None:
        self.name, self.launcher = name, launcher
        self.make_spec = make_spec
        self.state = NodeState.STOPPED
        self.restarts = 0
        self.job: str | None = None
        self.last_words = ""
        self.since = clock.wall()
        self._is_online, self._clock = is_online, clock
        self._attempt = self._early_ends = 0
        self._due = self._changed = clock.now()
        self._held_since: float | None = None
        self._again = False

    @property
    def stopped(self) -> bool:
        """True where nothing of it runs, and it will not start by itself."""
        return self.state is NodeState.STOPPED

    def start(self) -> None:
        """Have it run; no effect where it does, or will."""
        if self.state is NodeState.STOPPING:
            self._again = True
        elif self.state is NodeState.STOPPED:
            self._attempt = self._early_ends = 0
            self._submit()

    def stop(self) -> None:
        """Ask it once to stop; :meth:`tick` ends it where it does not within 5 s."""
        self._again = False
        if self.job is None:
            self._become(NodeState.STOPPED)
        elif self.state is not NodeState.STOPPING:
            self.launcher.cancel(self.job)
            self._become(NodeState.STOPPING)

    def restart(self) -> None:
        """Stop it and start it anew, with what ``make_spec`` says then."""
        self.stop()
        self.start()

    def tick(self) -> None:
        """Look at the job, and do what is due; call it several times a second."""
        if self.job is None:
            if self.state in (NodeState.RESTARTING, NodeState.FAILED) and self._clock.now() >= self._due:
                self._submit()
        elif self.launcher.state(self.job).final:
            self._ended(self.job)
        else:
            self._watch(self.job)

    def _watch(self, job: str) -> None:
        elapsed = self._clock.now() - self._changed
        if self.state is NodeState.STOPPING and elapsed > STOP_S:
            self.launcher.cancel(job, force=True)
        elif self.state is NodeState.STARTING and self._is_online(job):
            self._early_ends = 0
            self._held_since = None
            self._become(NodeState.ONLINE)
        elif self.state is NodeState.ONLINE and elapsed > STABLE_S:
            self._attempt = 0

    def _ended(self, job: str) -> None:
        said = self.launcher.logs(job)
        self.launcher.cancel(job, force=True)  # what it started must not meet its successor
        self.job = None
        if self.state is NodeState.STOPPING:
            self._become(NodeState.STOPPED)
            if self._again:
                self.start()
            return
        self.restarts += 1
        self.last_words = last_line(said)
        held = self._is_held(said)
        if self.state is NodeState.STARTING and not held:
            self._early_ends += 1
        self._retry(HELD_S if held else None)

    def _is_held(self, said: str) -> bool:
        if not any(words in said.lower() for words in HELD):
            return False
        now = self._clock.now()
        self._held_since = now if self._held_since is None else self._held_since
        return now - self._held_since < HELD_AT_MOST_S

    def _retry(self, delay_s: float | None) -> None:
        if delay_s is None:
            delay_s = min(FIRST_S * 2**self._attempt, LAST_S)
            self._attempt += 1
        self._due = self._clock.now() + delay_s
        log.warning("%s ended (%s): next start in %g s", self.name, self.last_words, delay_s)
        failed = self._early_ends >= FAILED_AFTER
        self._become(NodeState.FAILED if failed else NodeState.RESTARTING)

    def _submit(self) -> None:
        try:
            self.job = self.launcher.submit(self.make_spec())
        except LaunchError as error:
            self.last_words = str(error)
            self._early_ends += 1
            self._retry(None)
            return
        log.info("%s started as %s", self.name, self.job)
        self._become(NodeState.STARTING)

    def _become(self, state: NodeState) -> None:
        if state is not self.state:
            log.info("%s is %s", self.name, state)
            self.since = self._clock.wall()
        self.state, self._changed = state, self._clock.now()


def last_line(text: str) -> str:
    """The line of a log that says best why it ends: Flower's own reason, the last error, or just the last."""
    lines = [line.strip() for line in COLOUR.sub("", text).splitlines()]
    lines = [line for line in lines if line.strip("-= ")]
    codes = [index for index, line in enumerate(lines) if "Exit Code:" in line]
    if codes:
        words = [line for line in lines[codes[-1] :][:4] if not line.startswith(("INFO", "For more"))]
        return " ".join(words)[:300]
    errors = [line for line in lines if ERROR.search(line)]
    return (errors or lines or ["it wrote nothing"])[-1][:300]
