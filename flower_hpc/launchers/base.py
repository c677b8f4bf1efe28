"""What to run, and the few things that any launcher can do with it."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from ..errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """One long-running program, such as a SuperNode. Says what it is, never where it runs.

    Parameters
    ----------
    name : str
        What people call it; part of its log.
    command : tuple of str
        Program and arguments; ``{port:NAME}`` stands for a port that is free where and when it starts,
        ``{door}`` for what the file ``door`` says then, ``{env:NAME}`` for a variable there, ``python`` for
        the Python that starts it.
    cwd : Path
        Its working directory; made where it is missing.
    log : Path
        File that its output is appended to.
    env : mapping of str to str
        Variables on top of those of the environment it is submitted from; default none.
    stop_signal : signal.Signals
        What asks it to stop; default SIGINT, on which a SuperNode signs off within a second.
    door : Path, optional
        File that says where the SuperLink is; a job on another host starts anew when it changes.
    fingerprint : str
        Stands for all that decides how it is started, but for what differs at each start, such as a free
        port: a job that still runs is taken over only where it is the same. Default empty.
    """

    name: str
    command: tuple[str, ...]
    cwd: Path
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGINT
    door: Path | None = None
    fingerprint: str = ""

    def __post_init__(self) -> None:
        if not self.command:
            raise ConfigError(f"job {self.name!r} has no command")
        for text in (*self.command, *self.env, *self.env.values()):
            if "\0" in text:
                raise ConfigError(f"job {self.name!r}: no NUL character is allowed, got {text!r}")


class JobState(StrEnum):
    """Where a job is in its life; the words that ``facts.jsonl`` uses too."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    PREEMPTED = "preempted"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"

    @property
    def final(self) -> bool:
        """True where it will not run again by itself."""
        return self not in (self.PENDING, self.RUNNING, self.UNKNOWN)


@dataclass(frozen=True)
class JobStatus:
    """What is known of a job.

    Parameters
    ----------
    state : JobState
        Where it is.
    reason : str
        Why, in the scheduler's own words; default empty.
    starts_at : float, optional
        When a pending job is expected to start, in seconds since the epoch; default unknown.
    where : str
        The host that it runs on, as the scheduler names it; default unknown.
    pid : int, optional
        Of a process of this machine.
    job : str
        The scheduler's own id of it; empty until it has one.
    refused : bool
        True where the scheduler never took it, and would not take it a second time either; default False.
    leaves_at : float, optional
        When what it runs on will be taken away, in seconds since the epoch; default: nothing is known.
    ended : JobState, optional
        How its last start ended, where the scheduler starts it again by itself; default: as preempted.
    """

    state: JobState
    reason: str = ""
    starts_at: float | None = None
    where: str = ""
    pid: int | None = None
    job: str = ""
    refused: bool = False
    leaves_at: float | None = None
    ended: JobState | None = None


@dataclass(frozen=True)
class Found:
    """A job that an earlier launcher started and that has not ended: its id and its spec's fingerprint."""

    job_id: str
    fingerprint: str


class Launcher(Protocol):
    """What the controller of a federation asks of a scheduler; no method waits for one that is slow."""

    def render(self, spec: JobSpec) -> str:
        """What :meth:`submit` would start, for people to read; touches nothing."""
        ...

    def submit(self, spec: JobSpec) -> str:
        """Start ``spec`` and return the id that the other methods take; LaunchError where it cannot.

        A launcher that hands jobs over in the background tells in :meth:`status` what was refused.
        """
        ...

    def status(self, job_id: str) -> JobStatus:
        """Where the job is; UNKNOWN for an id that this launcher did not give."""
        ...

    def cancel(self, job_id: str, *, force: bool = False) -> None:
        """Ask the job once to stop, or with ``force`` end it and all it started.

        Returns at once. A job that has ended already is not an error; ``force`` then ends what it left.
        """
        ...

    def logs(self, job_id: str, max_bytes: int = 65536) -> str:
        """The last ``max_bytes`` of what the job wrote since it was submitted; default 64 KiB."""
        ...

    def adopt(self) -> Mapping[str, Found]:
        """By the name of its spec: what an earlier launcher with the same memory started and still lives.

        Whoever calls it goes on with those ids, or cancels them.
        """
        ...

    def close(self) -> None:
        """Let go of threads and connections; jobs go on."""
        ...
