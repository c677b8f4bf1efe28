"""A rank's parent: says in one line how the rank died, which MPI itself does not, and leaves nothing of it.

MPI cannot go on without a rank: ``mpiexec`` ends the others. What is known then is only a number, of a job
with a hundred ranks all at once. So each rank runs in a child of the process that ``mpiexec`` started, and
that process, which does nothing but wait, tells which rank it was, where, on which node's message it worked,
and how to go on. Processes that an app leaves behind end with their rank: ``mpiexec`` waits for all that hold
its output.
"""

import atexit
import contextlib
import ctypes
import mmap
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from ...parent import adopt_orphans, end_with_parent
from ...protocol import JOB_STATE_ENV

PASSED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
RANKS = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID")
SIZE = 4096
LEAVE_S = 5.0


class Note:
    """What the child wants to be known should it die; shared with its parent."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, SIZE)

    def write(self, words: str) -> None:
        """Note it; cut at 4 KB."""
        data = words.encode()[: SIZE - 2]
        self._shared[: len(data) + 2] = len(data).to_bytes(2, "little") + data

    def read(self) -> str:
        """What was noted last; empty at first."""
        size = int.from_bytes(self._shared[:2], "little")
        return self._shared[2 : 2 + size].decode(errors="replace")


def rank_of_environment() -> int | None:
    """The rank that the launcher of this process gives it, before MPI is asked; None where there is none."""
    for name in RANKS:
        value = os.environ.get(name, "")
        if value.isdigit():
            return int(value)
    return None


def guarded(work: Callable[[Note], int]) -> NoReturn:
    """Call ``work`` in a child process and end as it does.

    Parameters
    ----------
    work : callable
        Gets the note; what it returns is the exit code. It says itself what went wrong where it ends by
        itself: only other ends are told here. When it returns, the rank is no longer needed by others.
        ``FLOWER_HPC_JOB_STATE`` names a folder of its own, not there yet, which goes with it.
    """
    # made when it is needed: who kills a whole job leaves nobody to take folders away
    note, folder = Note(), Path(tempfile.gettempdir()) / f"flower-hpc-rank-{secrets.token_hex(8)}"
    os.environ[JOB_STATE_ENV] = str(folder)
    adopt_orphans()  # what an app leaves behind becomes ours to end
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        end_with_parent(signal.SIGKILL)  # who kills the parent means the rank
        _leave(work(note))

    def passed_on(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(child, number)

    for number in PASSED:
        signal.signal(number, passed_on)
    while (ended := os.waitpid(-1, 0))[0] != child:
        pass  # what the app had left behind has ended by itself
    status = ended[1]
    _end_children()
    shutil.rmtree(folder, ignore_errors=True)
    code = os.waitstatus_to_exitcode(status)
    if words := note.read():
        how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        rank, host = rank_of_environment(), socket.gethostname()
        print(f"error: rank {rank} on {host} died ({how}){words}", file=sys.stderr, flush=True)
    os._exit(code if code >= 0 else 128 - code)  # what the child had to clean up is none of ours


def _leave(code: int) -> NoReturn:
    """Exit; threads and processes that an app has left running are not waited for longer than 5 s.

    All but the interpreter is ended as ever. To take that to pieces costs a process that has imported Flower
    0.25 s, and a host has many that end together.
    """
    last = threading.Timer(LEAVE_S, _exit, [code])
    last.daemon = True
    last.start()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    _exit(code)


def _exit(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    # C's own, for MPICH leaves its launcher there; no other thread of Python's runs meanwhile
    ctypes.PyDLL(None).exit(code)
    raise AssertionError


def _end_children() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:  # as nearly always
        return
    import psutil  # only here: a thousand ranks begin at once

    left = psutil.Process().children(recursive=True)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=LEAVE_S)
