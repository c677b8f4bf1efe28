"""What Slurm says of jobs: one ``squeue`` for all of them, and ``sacct`` for those that it has forgotten.

``squeue`` knows a change at once and forgets an ended job after ``MinJobAge`` (300 s by default); ``sacct``
knows it for ever, is seconds late, and is missing on clusters without accounting.
https://slurm.schedmd.com/squeue.html#SECTION_JOB-STATE-CODES
"""

import os
import re
import subprocess
from collections.abc import Callable, Collection, Iterable

from ..errors import LaunchError
from .base import JobState, JobStatus

STATES = {
    "PENDING": JobState.PENDING,
    "CONFIGURING": JobState.PENDING,
    "REQUEUED": JobState.PENDING,
    "REQUEUE_FED": JobState.PENDING,
    "REQUEUE_HOLD": JobState.PENDING,
    "SPECIAL_EXIT": JobState.PENDING,
    "RESV_DEL_HOLD": JobState.PENDING,
    "RUNNING": JobState.RUNNING,
    "COMPLETING": JobState.RUNNING,
    "RESIZING": JobState.RUNNING,
    "SIGNALING": JobState.RUNNING,
    "STAGE_OUT": JobState.RUNNING,
    "STOPPED": JobState.RUNNING,
    "SUSPENDED": JobState.RUNNING,
    "COMPLETED": JobState.SUCCEEDED,
    "CANCELLED": JobState.CANCELLED,
    "REVOKED": JobState.CANCELLED,
    "PREEMPTED": JobState.PREEMPTED,
    "TIMEOUT": JobState.TIMEOUT,
    "DEADLINE": JobState.TIMEOUT,
    "BOOT_FAIL": JobState.FAILED,
    "FAILED": JobState.FAILED,
    "NODE_FAIL": JobState.FAILED,
    "OUT_OF_MEMORY": JobState.FAILED,
}

REQUEUED_AFTER = frozenset({"PREEMPTED", "NODE_FAIL", "BOOT_FAIL"})
"""A job that may be requeued shows these for a moment before it is pending again."""

NEVER = {
    "AssocMaxWallDurationPerJobLimit": "its time is above the limit of the account",
    "BadConstraints": "no node satisfies its constraint",
    "InvalidAccount": "its account is not valid",
    "InvalidQOS": "its qos is not valid",
    "JobHeldAdmin": "an administrator holds it",
    "JobHeldUser": "it is held: scontrol release",
    "JobHoldMaxRequeue": "it was requeued too often",
    "PartitionConfig": "the partition has no such nodes",
    "PartitionDown": "the partition is down",
    "PartitionInactive": "the partition is inactive",
    "PartitionNodeLimit": "more nodes than the partition allows",
    "PartitionTimeLimit": "its time is above the partition's limit",
    "QOSMaxWallDurationPerJobLimit": "its time is above the limit of the qos",
    "launch failed requeued held": "its start failed on the node, and Slurm holds it",
}
"""Reasons for which a pending job waits for ever: sbatch took it, and only this column tells."""

COMMAND_S = 60.0
Run = Callable[[Collection[str]], str]


def run(command: Collection[str]) -> str:
    """Standard output of one of Slurm's commands, with times in seconds since the epoch.

    Raises
    ------
    LaunchError
        It is missing, failed, or took more than a minute: in one line, with its own words.
    """
    words = list(command)
    try:
        done = subprocess.run(
            words,
            env=os.environ | {"SLURM_TIME_FORMAT": "%s"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LaunchError(f"{words[0]} did not answer within {COMMAND_S:g} s") from error
    except OSError as error:
        raise LaunchError(f"{words[0]} cannot be started: {error.strerror or error}") from error
    if done.returncode:
        raise LaunchError(f"{words[0]}: {said(done.stderr) or f'exit code {done.returncode}'}")
    return done.stdout


def kill_wait_s(run: Run) -> float:
    """Seconds between TERM and KILL on this cluster; Slurm's own default of 30 where it does not say."""
    try:
        found = re.search(r"^KillWait\s*=\s*(\d+)", run(("scontrol", "show", "config")), re.MULTILINE)
    except LaunchError:
        found = None
    return float(found[1]) if found else 30.0


def said(text: str) -> str:
    """The words of a Slurm command in one line, without its prefixes."""
    lines = (line.split("error:", 1)[-1].strip() for line in text.splitlines())
    return "; ".join(dict.fromkeys(line for line in lines if line))


class SlurmQueue:
    """Follows the jobs of some names: one call of ``squeue`` a poll, however many jobs there are.

    Parameters
    ----------
    names : iterable of str
        Of the jobs, as in ``--job-name``.
    run : callable
        Runs a command and returns its output; default :func:`run`.

    Attributes
    ----------
    calls : dict of str to int
        How often each command was run.
    """

    def __init__(self, names: Iterable[str], run: Run = run) -> None:
        self.names = tuple(names)
        self.calls: dict[str, int] = {}
        self._run = run
        self._has_sacct = True
        self._passing: set[str] = set()

    def poll(self, ids: Collection[str]) -> dict[str, JobStatus]:
        """Where each job of ``ids`` is.

        Raises
        ------
        LaunchError
            ``squeue`` failed: nothing is known, and nothing is to be concluded from that.
        """
        if not ids:
            return {}
        seen = self.listed()
        missing = [job for job in ids if job not in seen]
        if missing and self._has_sacct:
            seen = self._accounted(missing) | seen
        # seen for the second time, they are no passing states
        passing = {job for job, (state, *_) in seen.items() if state in REQUEUED_AFTER}
        found = {job: self._status(job, seen.get(job)) for job in ids}
        self._passing = passing
        return found

    def listed(self) -> dict[str, tuple[str, str, str, str]]:
        """State, start, host and reason of all jobs of these names that ``squeue`` still knows."""
        user = str(os.getuid())
        words = ("squeue", "-h", "-r", "-t", "all", "-u", user, "-n", ",".join(self.names))
        lines = self._call(*words, "-o", "%i|%T|%S|%N|%r").splitlines()
        split = (line.split("|", 4) for line in lines)
        return {job: (state, start, host, reason) for job, state, start, host, reason in split}

    def _accounted(self, ids: Collection[str]) -> dict[str, tuple[str, str, str, str]]:
        words = ("sacct", "-n", "-P", "-X", "-j", ",".join(ids), "-o", "JobID,State,Start,NodeList,ExitCode")
        try:
            lines = self._call(*words).splitlines()
        except LaunchError:  # no accounting here, now or ever: what squeue has forgotten is gone
            self._has_sacct = False
            return {}
        split = (line.split("|", 4) for line in lines if line.count("|") >= 4)
        return {job: (state, start, host, f"exit code {code}") for job, state, start, host, code in split}

    def _call(self, *command: str) -> str:
        self.calls[command[0]] = self.calls.get(command[0], 0) + 1
        return self._run(command)

    def _status(self, job: str, seen: tuple[str, str, str, str] | None) -> JobStatus:
        if seen is None:
            return JobStatus(JobState.FAILED, f"Slurm knows job {job} no more")
        status = read_status(*seen)
        word = seen[0].split()[0]
        if word in REQUEUED_AFTER and job not in self._passing:
            return JobStatus(JobState.PENDING, f"{word}, to be requeued", where=status.where)
        return status


def read_status(word: str, start: str, host: str, reason: str) -> JobStatus:
    """Slurm's words for a job, in ours; ``start`` in seconds since the epoch, or ``N/A``."""
    name = (word.split() or ["?"])[0].rstrip("+")  # "CANCELLED by 1001"
    state = STATES.get(name, JobState.UNKNOWN)
    reason = "" if reason in ("None", "") else reason
    if state is JobState.PENDING:
        why = next((text for key, text in NEVER.items() if reason.startswith(key)), None)
        if why is not None:
            return JobStatus(JobState.FAILED, f"it would wait for ever: {reason} ({why})", refused=True)
        return JobStatus(state, reason, starts_at=float(start) if start.isdigit() else None)
    if state is JobState.RUNNING:
        return JobStatus(state, "" if name == "RUNNING" else name, where=host)
    words = " ".join((word, f"({reason})" if reason and reason != "exit code 0:0" else "")).strip()
    return JobStatus(state, words, where=host)
