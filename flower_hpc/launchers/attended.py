"""A function in a batch job whose submitter may die: it learns so from a file, and ends.

The submitter writes its time into ``alive`` every few seconds. A job that starts when nobody waits ends at
once. One that loses its submitter, or is told to end by Slurm (USR2 before its time limit, TERM), finds a
file ``stop`` in ``$FLOWER_HPC_JOB_STATE``, which :func:`flower_hpc.client.budget_of` looks for, so that the
app ends early; what goes on without a submitter is killed.
"""

import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import JobFailed
from ..protocol import JOB_STATE_ENV

ALIVE = "alive"
BEATS = 8  # in the time after which a submitter counts as dead


@dataclass(frozen=True)
class Attended:
    """Calls ``fn`` while somebody waits for what it returns.

    Parameters
    ----------
    fn : callable
        The function.
    folder : Path
        The submitter's, on a shared file system.
    patience_s : float
        Its silence after which it counts as dead, in seconds; more than hosts' clocks differ.
    """

    fn: Callable[..., Any]
    folder: Path
    patience_s: float

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it, in the main thread of the job's process."""
        if not is_attended(self.folder, self.patience_s):
            raise JobFailed("nobody waits for this job any more")
        with told_to_stop() as stop:
            threading.Thread(target=self._watch, args=(stop,), daemon=True).start()
            return self.fn(*args, **kwargs)

    def _watch(self, stop: Path) -> None:
        while is_attended(self.folder, self.patience_s):
            time.sleep(self.patience_s / BEATS)
        print("nobody waits for this job any more: it is to end", file=sys.stderr, flush=True)
        _touch(stop)
        time.sleep(self.patience_s)
        os._exit(1)


@contextlib.contextmanager
def told_to_stop() -> Iterator[Path]:
    """A file that is there once this process was told to end, where the app's budget looks for it."""
    with tempfile.TemporaryDirectory(prefix="flower-hpc-job-") as state:
        os.environ[JOB_STATE_ENV] = state
        stop = Path(state) / "stop"
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, lambda *_: _touch(stop))
        yield stop


def beat(folder: Path) -> None:
    """Say that somebody waits for the folder's jobs."""
    now = time.time()
    file = folder / ALIVE
    file.touch()
    os.utime(file, (now, now))  # this host's clock, not the file server's


def leave(folder: Path) -> None:
    """Say that nobody waits any more."""
    with contextlib.suppress(OSError):
        os.utime(folder / ALIVE, (0, 0))


def is_attended(folder: Path, patience_s: float) -> bool:
    """Whether somebody said so lately; yes where the file system does not tell."""
    try:
        return time.time() - (folder / ALIVE).stat().st_mtime < patience_s
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _touch(file: Path) -> None:
    with contextlib.suppress(OSError):
        file.touch()
