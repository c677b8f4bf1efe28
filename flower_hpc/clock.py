"""Time as a value: the wall clock for real federations, a virtual one for tests and rehearsals."""

import time
from typing import Protocol


class Clock(Protocol):
    """What the round loop asks of time."""

    @property
    def virtual(self) -> bool:
        """True where only :meth:`sleep` makes time pass."""
        ...

    def now(self) -> float:
        """Seconds that only go forward; differences are durations."""
        ...

    def wall(self) -> float:
        """Seconds since the epoch, for people and records."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        ...


class WallClock:
    """Real time."""

    virtual = False

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Block for ``seconds``."""
        time.sleep(max(0.0, seconds))


class VirtualClock:
    """Time that passes only when someone sleeps: an hour of waiting costs microseconds.

    Parameters
    ----------
    start : float
        The first value of :meth:`now`, in seconds; default 0.
    """

    virtual = True

    def __init__(self, start: float = 0.0) -> None:
        self._now = start

    def now(self) -> float:
        """Virtual seconds."""
        return self._now

    def wall(self) -> float:
        """Virtual seconds too: records of a rehearsal are repeatable."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Advance by ``seconds`` at once."""
        self._now += max(0.0, seconds)


WALL: Clock = WallClock()
