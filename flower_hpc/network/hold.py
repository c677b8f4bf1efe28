"""Requests for messages that are held until there is one, so that no SuperNode sleeps while one waits for it.

A SuperNode that asks for messages and gets none sleeps for 3 s. The gateway keeps such a request open instead
and asks the SuperLink again, with the same request, which is signed for five minutes: when the bell rings for
that node, and now and then besides. The bell is a file to which who sends a message appends one line, the
node's request in hexadecimal, so that nothing needs to be understood here. What is read is cut off now and
then; a line that is lost so costs no more than the wait without a bell.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

PULL = b"/v1/fleet/pull-messages"
HOLD_S = 20.0
"""A SuperNode gives up after 30 s."""
AGAIN_S = 3.0
"""As often as it would ask by itself: for messages of which no bell tells."""
LOOK_S = 0.05
LARGEST = 1 << 12
"""Of a request that is held."""
MOST = 1 << 20
"""Of the bell's file, and of what is read at once."""


class Bell:
    """Hears which nodes have messages.

    Parameters
    ----------
    path : Path
        The file, which is made anew.
    is_over : callable
        Whether whoever holds requests is about to end: none is held any longer then.
    """

    def __init__(self, path: Path, is_over: Callable[[], bool]) -> None:
        self._path, self._is_over = path, is_over
        self.over = False
        self._read = 0
        self._waiting: dict[bytes, list[asyncio.Event]] = {}
        self._listening: asyncio.Task[None] | None = None
        path.write_bytes(b"")

    @contextlib.contextmanager
    def heard_by(self, request: bytes) -> Iterator[asyncio.Event]:
        """An event that is set when it rings for this request, and when all is over."""
        if self._listening is None:
            self._listening = asyncio.get_running_loop().create_task(self._listen())
        event = asyncio.Event()
        self._waiting.setdefault(request, []).append(event)
        try:
            yield event
        finally:
            self._waiting[request].remove(event)
            if not self._waiting[request]:
                del self._waiting[request]

    async def _listen(self) -> None:
        while not self.over:
            self.over = self._is_over()
            for request in self._waiting if self.over else self._new():
                for event in self._waiting.get(request, ()):
                    event.set()
            await asyncio.sleep(LOOK_S)

    def _new(self) -> list[bytes]:
        try:
            text = self._read_on()
        except FileNotFoundError:
            self._read, text = 0, b""
            with contextlib.suppress(OSError):
                self._path.touch()  # nobody rings where there is none
        except OSError:
            return []
        found = []
        for line in text.split():
            with contextlib.suppress(ValueError):
                found.append(bytes.fromhex(line.decode("ascii")))
        return found

    def _read_on(self) -> bytes:
        """The lines that are new."""
        size = self._path.stat().st_size
        if size == self._read:
            if size > MOST:
                os.truncate(self._path, 0)
            return b""
        if size < self._read:
            self._read = 0
        with self._path.open("rb") as file:
            file.seek(self._read)
            text = file.read(MOST)
        whole, newline, _ = text.rpartition(b"\n")
        # a line that long is none
        self._read += len(whole + newline) if newline or len(text) < MOST else MOST
        return whole


async def rung(event: asyncio.Event, gone: Coroutine[Any, Any, None], seconds: float) -> bool:
    """Wait for the bell, so long; False where the caller is gone."""
    ring, left = asyncio.ensure_future(event.wait()), asyncio.ensure_future(gone)
    try:
        done, _ = await asyncio.wait({ring, left}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ring.cancel()
        left.cancel()
    event.clear()
    return left not in done
