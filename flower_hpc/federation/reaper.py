"""Processes whose parents end before them come to us, so that none is left a zombie.

Flower's SuperExecs outlive what started them for a moment. Where PID 1 is no real init (containers), nobody
would collect what is left of them, and a look at the process list would show them for ever.
"""

import os
from collections.abc import Iterator
from contextlib import suppress

import psutil

from ..clock import WALL

POLL_S, LIMIT_S, LOOK_S = 0.05, 2.0, 5.0


class Adopted:
    """Collects children that nobody waits for, such as a site's MPI job that a message's process started.

    Those of our own are looked at between two ticks by whoever started them: one that is seen to have ended
    at two looks came to us from elsewhere.
    """

    def __init__(self, every_s: float = LOOK_S) -> None:
        self._every_s, self._next = every_s, 0.0
        self._seen: set[tuple[int, float]] = set()

    def tick(self) -> None:
        """Look, if it is time to."""
        if WALL.now() < self._next:
            return
        self._next = WALL.now() + self._every_s
        ended = {(child.pid, child.create_time()) for child in _ended()}
        for pid, _ in ended & self._seen:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        self._seen = ended


def _ended() -> Iterator[psutil.Process]:
    with suppress(psutil.Error):
        for child in psutil.Process().children():
            if child.status() == psutil.STATUS_ZOMBIE:
                yield child


def reap(limit_s: float = LIMIT_S) -> int:
    """Collect every child that has ended, and wait ``limit_s`` seconds for the last; how many there were.

    For the end of a process: whoever still waits for a child of its own would miss it.
    """
    deadline, count = WALL.now() + limit_s, 0
    while WALL.now() < deadline:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid:
            count += 1
        else:
            WALL.sleep(POLL_S)
    return count
