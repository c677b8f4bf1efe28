"""Which process is meant, though its number may be given again."""

import os
from contextlib import suppress

import psutil

SAME_S = 1.0  # psutil's epoch is a whole second


def created(pid: int) -> float:
    """When it was made, in seconds since the epoch; 0 where there is none."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).create_time()
    return 0.0


def identity(pid: int | None = None) -> str:
    """``PID:CREATED`` of a process; default this one."""
    pid = os.getpid() if pid is None else pid
    return f"{pid}:{created(pid)!r}"


def find(pid: int, created: float) -> psutil.Process | None:
    """The process of that number and creation time, where it runs."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        same = abs(process.create_time() - created) < SAME_S
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    return None
