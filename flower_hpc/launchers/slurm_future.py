"""A Future of a Slurm job, and the error that a job's end amounts to."""

import contextlib
from collections.abc import Callable
from concurrent.futures import InvalidStateError
from typing import TypeVar

from ..errors import JobFailed, JobLost
from .base import JobState, JobStatus
from .job_future import JobFuture

RESULT_S = 60.0
"""How long the result of a job that ended well may take to show up on a shared file system."""
LOST = ("NODE_FAIL", "BOOT_FAIL")

T = TypeVar("T")


class SlurmFuture(JobFuture[T]):
    """A Future of a Slurm job, by Slurm's number of it."""

    def __init__(self, job_id: str, scancel: Callable[[str], None]) -> None:
        super().__init__("Slurm job", job_id, scancel)

    def settle(self, result: Callable[[], T]) -> bool:
        """Take over what ``result()`` returns or raises; whether that was a result."""
        try:
            value = result()
        except Exception as error:
            with contextlib.suppress(InvalidStateError):
                self.set_exception(error)
            return False
        with contextlib.suppress(InvalidStateError):
            self.set_result(value)
        return True


def failure_of(job: str, status: JobStatus, last: str) -> JobFailed:
    """The error of a job that ended without its result: Slurm's word and the last line of its log."""
    if status.state is JobState.SUCCEEDED:
        return JobFailed(f"{job}: it ended well, but left no result within {RESULT_S:g} s")
    words = f"{job}: {status.reason or status.state}" + (f"; its last line: {last}" if last else "")
    lost = status.state is JobState.PREEMPTED or status.reason.startswith(LOST)
    return JobLost(words) if lost else JobFailed(words)
