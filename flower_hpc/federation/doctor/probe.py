"""One short job of a site, which reports what its compute node is like; cancelled when it takes too long."""

import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...clock import WALL
from ...errors import LaunchError
from ...launchers import JobState, JobStatus, SlurmOptions
from ...launchers.probe import Probe
from ...launchers.slurm_queue import STATES, Run, SlurmQueue
from ...launchers.slurm_submit import files_of, submit
from ...launchers.tail import tail
from .folders import borrowed

Tell = Callable[[str], None]
MINUTES = 5
LOOK_S, END_S = 1.0, 45.0
LATE_S = {True: 15.0, False: 2.0}
"""How long a report, or a log, may be on its way through a shared disk after a job ended well, or badly."""
LOG_BYTES = 8192


@dataclass(frozen=True)
class Outcome:
    """What became of the probe.

    Parameters
    ----------
    status : JobStatus
        Of its job when it was last looked at.
    report : mapping, optional
        What it reported; None where it did not.
    log : str
        The end of what the job printed.
    after, before : float
        Between which moments of this machine's clock it reported.
    waited_s : float
        From its submission.
    """

    status: JobStatus
    report: dict[str, Any] | None = None
    log: str = ""
    after: float = 0.0
    before: float = 0.0
    waited_s: float = 0.0


def send(
    options: SlurmOptions, job_name: str, probe: Probe, *, timeout_s: float, run: Run, tell: Tell
) -> Outcome:
    """Submit ``probe`` with a site's options, and wait for its report; leaves neither job nor file.

    Raises
    ------
    LaunchError
        Slurm refused it; in one line.
    OSError
        The site's folder cannot be written.
    """
    name = f"{job_name}-doctor-{secrets.token_hex(4)}"
    queue = SlurmQueue((name,), run)
    with borrowed(options.folder) as folder, cancelled(queue, name, run):
        more = {key: value for key, value in options.options.items() if not key.startswith("mail-")}
        short = replace(options, folder=folder, minutes=min(options.minutes, MINUTES), options=more)
        report = folder / "report.json"
        (job,) = submit(short, name, [replace(probe, report=report)])
        return follow(queue, job, report, timeout_s=timeout_s, tell=tell)


def follow(queue: SlurmQueue, job: str, report: Path, *, timeout_s: float, tell: Tell) -> Outcome:
    """Look until there is a report, or the job ended without one, or the time is up."""
    began, after = WALL.now(), WALL.wall()
    status, ended = JobStatus(JobState.PENDING, job=job), None
    while True:
        looked = WALL.wall()
        with suppress(LaunchError):  # what is not known now may be known at the next look
            status = replace(queue.poll([job])[job], job=job)
            after = looked if status.state is JobState.PENDING else after
        waited = WALL.now() - began
        tell(f"probe job {job} is {status.state}{status.reason and f': {status.reason}'}, {waited:.0f} s")
        read = read_report(report)
        if status.state.final and ended is None:
            ended = WALL.now()
        late = ended is not None and WALL.now() - ended > LATE_S[status.state is JobState.SUCCEEDED]
        if read is not None or status.refused or late or waited > timeout_s:
            log = tail(files_of(report.parent, job)[0], LOG_BYTES)
            return Outcome(status, read, log, after, WALL.wall(), waited)
        WALL.sleep(LOOK_S)


def read_report(path: Path) -> dict[str, Any] | None:
    """What the probe wrote; None where nothing is to be seen yet."""
    os.listdir(path.parent)  # NFS believes for a while that what was missing is missing
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found


@contextmanager
def cancelled(queue: SlurmQueue, name: str, run: Run) -> Iterator[None]:
    """Whatever happens meanwhile, jobs of this name are gone afterwards, and write no more."""
    try:
        yield
    finally:
        with suppress(LaunchError):
            if alive(queue):
                # it has reported, and may end by itself
                WALL.sleep(LOOK_S)
                run(("scancel", "-Q", "-u", str(os.getuid()), "-n", name))
            until = WALL.now() + END_S
            while alive(queue) and WALL.now() < until:
                WALL.sleep(LOOK_S / 2)


def alive(queue: SlurmQueue) -> bool:
    """Whether a job of the queue's names has not left its node yet."""
    words = (word.split()[0] for word, *_ in queue.listed().values())
    return not all(STATES.get(word, JobState.UNKNOWN).final for word in words)
