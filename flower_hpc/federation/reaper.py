"""Processes whose parents end before them come to us, so that none is left a zombie.

Flower's SuperExecs outlive what started them for a moment. Where PID 1 is no real init (containers), nobody
would collect what is left of them, and a look at the process list would show them for ever.
"""

import ctypes
import os
import sys

from ..clock import WALL

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
POLL_S, LIMIT_S = 0.05, 2.0


def adopt_orphans() -> bool:
    """Become the parent of descendants whose own parent ends; False where the system has no such thing."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


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
