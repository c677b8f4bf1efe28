"""A Future of a Slurm job, and the error that a job's end amounts to."""

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import TypeVar

from ..errors import JobFailed, JobLost
from .base import JobState, JobStatus

RESULT_S = 60.0
"""How long the result of a job that ended well may take to show up on a shared file system."""
LOST = ("NODE_FAIL", "BOOT_FAIL")

T = TypeVar("T")


class SlurmFuture(Future[T]):
    """A Future of a Slurm job.

    Attributes
    ----------
    job_id : str
        Slurm's number of it.
    reason : str
        Why it waits, in Slurm's words.
    """

    def __init__(self, job_id: str, scancel: Callable[[str], None]) -> None:
        super().__init__()
        self.job_id, self.reason, self._scancel = job_id, "", scancel
        self.submitted, self.ended = time.monotonic(), 0.0
        self._stopped = False

    @property
    def job(self) -> str:
        """What a person would look for."""
        return f"Slurm job {self.job_id}"

    def cancel(self) -> bool:
        """End the job, queued or running; False if it has ended already."""
        if self.done():
            return self.cancelled()
        self._scancel(self.job_id)
        with contextlib.suppress(InvalidStateError):
            if not super().cancel():
                self._stopped = True
                self.set_exception(CancelledError(f"{self.job} was cancelled"))
        return self.cancelled()

    def cancelled(self) -> bool:
        """Whether :meth:`cancel` ended it."""
        return self._stopped or super().cancelled()

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
