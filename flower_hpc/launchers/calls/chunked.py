"""Bodies of HTTP messages that are written and read piece by piece: a model is never copied as a whole."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

PIECE = 1 << 20


class ChunkedWriter(io.RawIOBase):
    """What is written is sent in chunks; :meth:`finish` ends the body.

    Parameters
    ----------
    send : callable
        Sends bytes, all of them.
    """

    def __init__(self, send: Callable[[Any], object]) -> None:
        self._send = send
        self._given_up = False

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:
        """Send it; nothing of it is kept."""
        view = memoryview(data).cast("B")
        if self._given_up:
            return len(view)
        for start in range(0, len(view), PIECE):
            piece = view[start : start + PIECE]
            self._send(b"%x\r\n" % len(piece))
            self._send(piece)
            self._send(b"\r\n")
        return len(view)

    def give_up(self) -> None:
        """Send nothing any more."""
        self._given_up = True

    def finish(self) -> None:
        """Say that this was all; a body without it has been cut off."""
        self._send(b"0\r\n\r\n")


@contextmanager
def chunked(send: Callable[[Any], object]) -> Iterator[BinaryIO]:
    """A file whose content is sent in chunks; it is cut off where an error leaves the block."""
    writer = ChunkedWriter(send)
    body = io.BufferedWriter(writer, PIECE)
    try:
        yield body
        body.flush()
        writer.finish()
    finally:
        writer.give_up()
        body.close()


class ChunkedReader(io.RawIOBase):
    """A body that comes in chunks.

    Parameters
    ----------
    file : BinaryIO
        The connection, buffered.

    Raises
    ------
    ConnectionError
        While it is read: it is cut off, or is no such body.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left, self._over = file, 0, False

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what has come, up to the end of a chunk."""
        if self._over or not len(buffer):
            return 0
        if self._left == 0 and not self._next():
            return 0
        view = memoryview(buffer).cast("B")
        count: int = self._file.readinto(view[: self._left])  # type: ignore[attr-defined]
        if not count:
            raise ConnectionError("the body was cut off")
        self._left -= count
        if self._left == 0:
            self._line()
        return count

    def _next(self) -> bool:
        try:
            self._left = int(self._line().partition(b";")[0], 16)
        except ValueError as error:
            raise ConnectionError("the body was cut off") from error
        if self._left == 0:
            self._line()
            self._over = True
        return not self._over

    def _line(self) -> bytes:
        line = self._file.readline(1024)
        if not line.endswith(b"\n"):
            raise ConnectionError("the body was cut off")
        return line.strip()
