"""Byte codecs: Zstandard, and the byte shuffle that helps it."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import zstandard

from ..errors import ConfigError, ReplyError
from .codec import ByteCodec


@dataclass(frozen=True)
class Zstd(ByteCodec):
    """Zstandard (RFC 8878).

    Parameters
    ----------
    level : int
        1 (fast) to 22; default 3.
    """

    name: ClassVar[str] = "zstd"
    level: int = 3

    def __post_init__(self) -> None:
        if isinstance(self.level, bool) or not isinstance(self.level, int) or not 1 <= self.level <= 22:
            raise ConfigError(f"level must be a whole number in [1, 22], got {self.level!r}")

    def compress(self, data: bytes) -> bytes:
        """One frame, which says how long its content is."""
        return zstandard.ZstdCompressor(level=self.level).compress(data)

    def decompress(self, data: bytes, limit: int) -> bytes:
        """Its content, if that is declared and within the limit."""
        try:
            size = zstandard.frame_content_size(data)
            if not 0 <= size <= limit:  # -1: not declared
                raise ReplyError(f"zstd: {size} bytes declared, at most {limit} allowed")
            # the window of a small content is small; zstd refuses a larger one
            return zstandard.ZstdDecompressor().decompress(data, size, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise ReplyError(f"zstd: {error}") from error


@dataclass(frozen=True)
class Shuffle(ByteCodec):
    """All first bytes of the numbers, then all second ones: exponents are then neighbours, as ``zstd`` likes.

    Parameters
    ----------
    itemsize : int
        Bytes a number, in [2, 16]; default 4.
    """

    name: ClassVar[str] = "shuffle"
    itemsize: int = 4

    def __post_init__(self) -> None:
        if type(self.itemsize) is not int or not 2 <= self.itemsize <= 16:
            raise ConfigError(f"itemsize must be a whole number in [2, 16], got {self.itemsize!r}")

    def compress(self, data: bytes) -> bytes:
        """Transpose; bytes beyond the last whole number stay at the end."""
        return self._turn(data, len(data) // self.itemsize, self.itemsize)

    def decompress(self, data: bytes, limit: int) -> bytes:
        """Transpose back."""
        return self._turn(data, self.itemsize, len(data) // self.itemsize)

    def _turn(self, data: bytes, rows: int, columns: int) -> bytes:
        whole = rows * columns
        if not whole:
            return data
        return np.frombuffer(data, np.uint8, whole).reshape(rows, columns).T.tobytes() + data[whole:]
