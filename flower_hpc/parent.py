"""Parents: to end with one's own, to become that of orphans; the standard library alone, for any Python."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


def end_with_parent(number: signal.Signals, parent: int | None = None) -> bool:
    """Have the kernel send us ``number`` when our parent ends; False where that is not ``parent`` any longer.

    Elsewhere than on Linux nothing is sent.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    return parent is None or os.getppid() == parent


def adopt_orphans() -> bool:
    """Become the parent of descendants whose own parent ends; False where the system has no such thing."""
    return sys.platform == "linux" and not ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
