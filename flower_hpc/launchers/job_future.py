"""A Future of a batch job: it can be cancelled while it runs, and says why it waits."""

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import TypeVar

T = TypeVar("T")


class JobFuture(Future[T]):
    """A Future of a batch job.

    Attributes
    ----------
    job_id : str
        The batch system's own name of it.
    job : str
        What a person would look for.
    reason : str
        Why it waits, in the batch system's words.
    """

    def __init__(self, kind: str, job_id: str, end: Callable[[str], None]) -> None:
        super().__init__()
        self.job_id, self.job, self.reason, self._end = job_id, f"{kind} {job_id}", "", end
        self.submitted, self.ended = time.monotonic(), 0.0
        self._stopped = False

    def cancel(self) -> bool:
        """End the job, queued or running; False if it has ended already."""
        if self.done():
            return self.cancelled()
        self._end(self.job_id)
        with contextlib.suppress(InvalidStateError):
            if not super().cancel():
                self._stopped = True
                self.set_exception(CancelledError(f"{self.job} was cancelled"))
        return self.cancelled()

    def cancelled(self) -> bool:
        """Whether :meth:`cancel` ended it."""
        return self._stopped or super().cancelled()
