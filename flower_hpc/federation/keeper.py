"""One job that is kept alive: submitted, watched, submitted again after a back-off when it ends."""

import logging
from collections.abc import Callable

from ..clock import WALL, Clock
from ..errors import LaunchError
from ..launchers import Found, JobSpec, JobState, JobStatus, Launcher
from ..launchers.supernode_log import is_held, last_error, last_line
from .status import NodeState

log = logging.getLogger(__name__)

FIRST_S, LAST_S = 1.0, 60.0
STABLE_S = 60.0
STOP_S = 5.0
HELD_S, HELD_AT_MOST_S = 5.0, 120.0
FAILED_AFTER = 3
LOOK_S, SLOW_S = 0.5, 15.0

BY_THE_SCHEDULER = (JobState.SUCCEEDED, JobState.PREEMPTED, JobState.TIMEOUT, JobState.CANCELLED)
"""Ends that are no failure of the job: it left in time, was sent away, or somebody cancelled it."""


class Keeper:
    """Keeps one job alive.

    Parameters
    ----------
    name : str
        For the log.
    launcher : Launcher
        Where it runs.
    make_spec : callable
        Called before each start, and before a job is taken over, which must be as it says.
    is_online : callable
        Whether the job, of the given id, does its work.
    clock : Clock
        Default: the wall clock.
    prepare : callable
        Called before each start, and not where a job is taken over; LaunchError where it cannot start now.

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
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        self.name, self.launcher = name, launcher
        self.make_spec = make_spec
        self.state = NodeState.STOPPED
        self.restarts = 0
        self.job: str | None = None
        self.status = JobStatus(JobState.UNKNOWN)
        """What the launcher says of the job, or said of the last one."""
        self.last_words = ""
        """Why the last job ended, or could not be submitted."""
        self.since = clock.wall()
        self._is_online, self._clock, self._prepare = is_online, clock, prepare
        self._attempt = self._early_ends = 0
        self._due = self._changed = clock.now()
        self._held_since: float | None = None
        self._again = self._was_online = False
        self._looked, self._heard = -LOOK_S, ""

    @property
    def stopped(self) -> bool:
        """True where nothing of it runs, and it will not start by itself."""
        return self.state is NodeState.STOPPED

    @property
    def reason(self) -> str:
        """What the scheduler says of the job now, or its log, and why the one before it ended."""
        now = (self.status.reason or self._heard) if self.job is not None else ""
        return "; before: ".join(dict.fromkeys(filter(None, (now, self.last_words))))

    def start(self) -> None:
        """Have it run; no effect where it does, or will."""
        if self.state is NodeState.STOPPING:
            self._again = True
        elif self.state is NodeState.STOPPED:
            self._attempt = self._early_ends = 0
            self._submit()

    def take_over(self, found: Found) -> bool:
        """Go on with a job that an earlier controller started, where it is as it would be started now."""
        if found.fingerprint != self.make_spec().fingerprint:
            self.launcher.cancel(found.job_id)
            return False
        self.job = found.job_id
        self._become(NodeState.STARTING)
        log.info("%s is taken over: %s", self.name, self.job)
        return True

    def look_again(self) -> None:
        """Take it for online only once it is seen to be so anew."""
        if self.state is NodeState.ONLINE:
            self._become(NodeState.STARTING)

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
            return
        self.status = self.launcher.status(self.job)
        if self.status.state.final:
            self._ended(self.job)
        else:
            self._watch(self.job)

    def _watch(self, job: str) -> None:
        elapsed = self._clock.now() - self._changed
        queued = self.status.state is JobState.PENDING
        if self.state is NodeState.STOPPING:
            if elapsed > STOP_S:
                self.launcher.cancel(job, force=True)
        elif queued and self.state is not NodeState.QUEUED:
            if self.state is NodeState.ONLINE:  # preempted, or its host is gone: it waits anew
                self.restarts += 1
                self.last_words = self.status.reason or "back in the queue"
            self._become(NodeState.QUEUED)
        elif not queued and self.state is NodeState.QUEUED and self.status.state is JobState.RUNNING:
            self._become(NodeState.STARTING)
        elif self.state is NodeState.STARTING and self._looks_online(job):
            self._early_ends = 0
            self._was_online = True
            self._held_since = None
            self._become(NodeState.ONLINE)
        elif self.state is NodeState.ONLINE and elapsed > STABLE_S:
            self._attempt = 0

    def _looks_online(self, job: str) -> bool:
        # not at every tick: the log may lie on a shared disk
        if self._clock.now() - self._looked < LOOK_S:
            return False
        self._looked = self._clock.now()
        if self._is_online(job):
            return True
        if self._looked - self._changed > SLOW_S:
            self._heard = last_line(self.launcher.logs(job))
        return False

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
        self.last_words = ended_because(self.status, said)
        held = self._is_held(said)
        if self.status.refused:
            self._early_ends = max(FAILED_AFTER, self._early_ends + 1)
        elif self._was_online and self.status.state in BY_THE_SCHEDULER:
            self._attempt = 0  # no fault of its own
        elif not self._was_online and not held:
            self._early_ends += 1
        self._retry(HELD_S if held else None)

    def _is_held(self, said: str) -> bool:
        if not is_held(said):
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
            self._prepare()
            self.job = self.launcher.submit(self.make_spec())
        except LaunchError as error:
            self.last_words = str(error)
            self._early_ends += 1
            self._retry(None)
            return
        log.info("%s started as %s", self.name, self.job)
        self._was_online = False
        self._become(NodeState.STARTING)

    def _become(self, state: NodeState) -> None:
        if state is not self.state:
            log.info("%s is %s", self.name, state)
            self.since = self._clock.wall()
        self.state, self._changed, self._heard = state, self._clock.now(), ""


def ended_because(status: JobStatus, said: str) -> str:
    """Why a job ended, in one line: the scheduler's word, and the line of the log that says best why."""
    words = last_error(said) if status.reason else last_line(said)
    return ": ".join(part for part in (status.reason, words) if part)[:400]
