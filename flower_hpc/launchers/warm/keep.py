"""Replaces a server that was killed: by a process that was there before any import, and only waits."""

import os
import signal
import sys

from ...clock import WALL
from ...parent import end_with_parent
from .call import say

AGAIN_S = 60.0
"""Not sooner after a server's start is there another: what kills it may do so again."""


def keep(again_s: float = AGAIN_S) -> None:
    """Fork, and return in the child, which ends with this process.

    This process forks again whenever the child is killed, or fails; and ends once a child ends with 0.
    """
    us = os.getpid()
    while True:
        due = WALL.now() + again_s
        if (child := os.fork()) == 0:
            if not end_with_parent(signal.SIGKILL, us):
                os._exit(0)
            return
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == 0:
            sys.exit()
        how = f"ended with {code}" if code > 0 else f"was killed by {signal.Signals(-code).name}"
        wait_s = max(0.0, due - WALL.now())
        say(f"the server {how}; the next one starts in {wait_s:.0f} s")
        WALL.sleep(wait_s)
