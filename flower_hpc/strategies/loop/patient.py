"""Questions to a SuperLink that may fail for a while, as where its database is busy with large models."""

from collections.abc import Callable
from typing import TypeVar

from ...clock import Clock
from .log import LOG

Answer = TypeVar("Answer")

BEARS_S = 60.0
SERVER_ERROR = 500  # and above, of HTTP; what is below is the fault of who asks, and does not pass


class Patient:
    """Asks, and bears failures of the same question for a minute.

    Parameters
    ----------
    clock : Clock
        The grid's own, or the wall clock.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: dict[str, float] = {}

    def __call__(self, question: str, call: Callable[[], Answer]) -> Answer | None:
        """What ``call`` returns; None where the server failed, and should be asked again."""
        try:
            found = call()
        except Exception as error:
            status, now = getattr(getattr(error, "response", None), "status_code", 0), self._clock.now()
            if status < SERVER_ERROR or now > self._since.get(question, now) + BEARS_S:
                raise
            if question not in self._since:
                LOG.warning("the SuperLink fails, and is asked again for %g s: %s", BEARS_S, error)
                self._since[question] = now
            return None
        self._since.pop(question, None)
        return found
