"""One process at a time works on a run: it holds a lock in the run's folder, which dies with it."""

import fcntl
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from ..errors import RunError

LOCK = "run.lock"


class RunLock:
    """A context manager that holds the lock of a run's folder; None locks nothing.

    Raises
    ------
    RunError
        Another process holds it.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        """Take it."""
        if self._folder is None:
            return self
        self._folder.mkdir(parents=True, exist_ok=True)
        self._file = (self._folder / LOCK).open("a")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise RunError(f"another process works on the run in {self._folder}") from None
        except OSError:  # a file system without locks: nothing to hold
            return self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let it go."""
        if self._file is not None:
            self._file.close()
