"""How many cores this process may use."""

import os


def cores() -> int:
    """Those that this process may run on; a batch system gives it fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
