"""Which signal ended a run: the ServerApp's own, or the one that its user's command got and left word of.

A SuperLink that is told to stop a run does not tell why, and Flower's handler ends the process with code 0.
"""

import signal
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

NOTE = "interrupted"
NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Signals:
    """While entered, notes the first signal that ends the process, and lets it be handled as before."""

    def __init__(self) -> None:
        self.heard: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Listen, where Python lets us: in the main thread."""
        if threading.current_thread() is threading.main_thread():
            handlers = {number: signal.getsignal(number) for number in NUMBERS}
            self._before = {number: handler for number, handler in handlers.items() if callable(handler)}
            for number in self._before:
                signal.signal(number, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put back what is still ours; handlers may have put others there."""
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._hear:
                signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.heard = self.heard or number
        self._before[number](number, frame)


def signal_of(error: BaseException) -> int | None:
    """The signal that an exception stands for, if any."""
    if isinstance(error, KeyboardInterrupt):
        return signal.SIGINT
    code = error.code if isinstance(error, SystemExit) else None
    known = isinstance(code, int) and code - 128 in set(signal.Signals)
    return int(code) - 128 if known else None  # type: ignore[arg-type]


def leave_word(folder: Path, error: BaseException) -> None:
    """For the ServerApp, before it is stopped: which signal its user's command got."""
    with suppress(OSError):
        (folder / NOTE).write_text(str(signal_of(error) or ""))


def why_ended(folder: Path | None, error: BaseException, heard: int | None) -> tuple[str, int]:
    """In words, and as an exit code: how a run ended that an exception such as SystemExit ended."""
    word = ""
    if folder is not None:
        with suppress(OSError):
            word = (folder / NOTE).read_text()
    number = int(word) if word.isdigit() else heard or signal_of(error)
    if number is None:
        return (str(error) if isinstance(error, Exception) else "") or type(error).__name__, 1
    return f"interrupted by {signal.Signals(number).name}", 128 + number
