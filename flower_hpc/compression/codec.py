"""What a codec is: an array to bytes and back, in up to four stages that are joined with ``>>``.

    [sparsifier] >> [value codec] >> [byte codec ...]      topk(0.01) >> int8 >> zstd

A sparsifier keeps some entries and says where they stood, a value codec writes numbers, a byte codec packs
bytes without loss; each may be left out (``raw`` writes numbers as they are). The ``stype`` of a chain is its
text with all parameters, so that a receiver needs no configuration. It never changes its meaning: bytes that
were stored decode for ever.
"""

import re
import struct
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np

from ..errors import ConfigError, ReplyError
from ..records import NDArray, Sparse

PREFIX = "flower_hpc:"
MAX_STAGES = 4
HEAD = struct.Struct("<I")  # bytes of the positions that follow
TEXT = re.compile(r"[a-z0-9_]+")


class Unencodable(ValueError):
    """An array that a codec cannot write, as values beyond float16; it then travels exactly."""


class Codec(ABC):
    """One way to write floating-point arrays; a frozen value.

    Attributes
    ----------
    name : str
        In specs and on the wire; permanent.
    lossless : bool
        Whether every bit comes back.
    unbiased : bool
        Whether what comes back is, over seeds, on average what went in, at a scale that error feedback must
        not be used with.
    """

    name: ClassVar[str]
    lossless: bool = False
    unbiased: bool = False

    @property
    def stages(self) -> tuple["Codec", ...]:
        """The codecs that an array passes, first to last."""
        return (self,)

    @property
    def spec(self) -> str:
        """The text that describes this codec, with all parameters."""
        # the order of a codec's fields is part of the format: new ones come last, with defaults
        values = ",".join(_word(getattr(self, f.name)) for f in fields(self))  # type: ignore[arg-type]
        return f"{self.name}({values})" if values else self.name

    @property
    def stype(self) -> str:
        """Flower's name of the serialization."""
        return PREFIX + self.spec

    def __rshift__(self, other: "Codec") -> "Chain":
        """First this codec, then ``other``."""
        if not isinstance(other, Codec):
            return NotImplemented
        return Chain((*self.stages, *other.stages))

    def encode(
        self, x: NDArray, seed: int = 0, keep: NDArray | None = None, common: int | None = None
    ) -> bytes:
        """Write an array.

        Parameters
        ----------
        x : ndarray
            Real floating point (float16, bfloat16, float32, float64), finite; any shape, empty ones too.
        seed : int
            Of stochastic rounding; default 0.
        keep : ndarray, optional
            Flat positions, ascending, that a :class:`TopK` has chosen already.
        common : int, optional
            Of random choice; default ``seed``.

        Raises
        ------
        Unencodable
            Values that this codec cannot hold.
        """
        sparse, values, packers = self._split()
        # little-endian on the wire, wherever this runs
        flat = np.ascontiguousarray(x).reshape(-1).astype(x.dtype.newbyteorder("<"), copy=False)
        head = b""
        if sparse is not None:
            positions, flat = sparse.split(flat, seed if common is None else common, keep)
            head = HEAD.pack(len(positions)) + positions
        data = values.write(flat, seed)
        data = head + data if head else data
        for packer in packers:
            data = packer.compress(data)
        return data

    @np.errstate(over="ignore", invalid="ignore")  # what is not finite is for the receiver to refuse
    def decode(self, data: bytes, shape: tuple[int, ...], dtype: np.dtype) -> NDArray | Sparse:
        """Read what :meth:`encode` wrote; what a sparsifier chose comes back as :class:`Sparse`.

        Parameters
        ----------
        data : bytes
            As received; nothing about it is believed.
        shape, dtype
            Of the array, as the receiver knows them: they bound the memory that is taken.

        Raises
        ------
        ReplyError
            Bytes that this codec did not write for such an array.
        """
        sparse, values, packers = self._split()
        size = int(np.prod(shape, dtype=object))
        limit = HEAD.size + values.num_bytes(size, dtype) + (sparse.head_bytes(size) if sparse else 0)
        for packer in reversed(packers):
            data = packer.decompress(data, limit)
        if sparse is None:
            return values.read(data, size, dtype).reshape(shape)
        if len(data) < HEAD.size:
            raise ReplyError(f"{self.name}: {len(data)} bytes are too few")
        end = HEAD.size + HEAD.unpack_from(data)[0]
        if end > len(data):
            raise ReplyError(f"{self.name}: its positions are cut off")
        where = sparse.positions(data[HEAD.size : end], size)
        found = sparse.scale(values.read(data[end:], len(where), dtype), where, size)
        return Sparse(where, found, shape)

    def _split(self) -> tuple["Sparsifier | None", "ValueCodec", list["ByteCodec"]]:
        sparse = next((s for s in self.stages if isinstance(s, Sparsifier)), None)
        values = next((s for s in self.stages if isinstance(s, ValueCodec)), Raw())
        return sparse, values, [s for s in self.stages if isinstance(s, ByteCodec)]


@dataclass(frozen=True)
class Chain(Codec):
    """Codecs one after the other.

    Parameters
    ----------
    parts : tuple of Codec
        At most one sparsifier, one value codec and byte codecs, in this order, each once; at most 4 in all.

    Raises
    ------
    ConfigError
        Another order, or more.
    """

    name: ClassVar[str] = "chain"
    parts: tuple[Codec, ...]

    def __post_init__(self) -> None:
        if len(self.parts) > MAX_STAGES:
            found = f"{len(self.parts)}: {self.spec}"
            raise ConfigError(f"a codec must have at most {MAX_STAGES} stages, got {found}")
        order, names = [_rank(part) for part in self.parts], {part.name for part in self.parts}
        if order != sorted(order) or order.count(0) > 1 or order.count(1) > 1 or len(names) < len(order):
            raise ConfigError(
                f"a codec must be [sparsifier] >> [value codec] >> [byte codecs], each once, got {self.spec}"
            )

    @property
    def stages(self) -> tuple[Codec, ...]:
        """The parts."""
        return self.parts

    @property
    def spec(self) -> str:
        """The parts' texts, joined."""
        return ">>".join(part.spec for part in self.parts)

    @property
    def lossless(self) -> bool:  # type: ignore[override]
        """Whether all parts are."""
        return all(part.lossless for part in self.parts)

    @property
    def unbiased(self) -> bool:  # type: ignore[override]
        """Whether all lossy parts are."""
        return not self.lossless and all(part.unbiased or part.lossless for part in self.parts)


class Sparsifier(Codec):
    """Keeps some entries."""

    @abstractmethod
    def split(self, x: NDArray, seed: int, keep: NDArray | None) -> tuple[bytes, NDArray]:
        """Where the kept entries of a flat array stand, as bytes, and their values."""

    @abstractmethod
    def positions(self, head: bytes, size: int) -> NDArray:
        """The positions, ascending int64 below ``size``; ReplyError where the bytes give none such."""

    @abstractmethod
    def head_bytes(self, size: int) -> int:
        """The most bytes that the positions in an array of ``size`` take."""

    def scale(self, values: NDArray, where: NDArray, size: int) -> NDArray:
        """What the kept values stand for; by default themselves."""
        return values


class ValueCodec(Codec):
    """Writes numbers."""

    @abstractmethod
    def write(self, x: NDArray, seed: int) -> bytes:
        """A flat array as bytes."""

    @abstractmethod
    def read(self, data: bytes, count: int, dtype: np.dtype) -> NDArray:
        """``count`` numbers; ReplyError where the bytes are not theirs."""

    @abstractmethod
    def num_bytes(self, count: int, dtype: np.dtype) -> int:
        """The most bytes that ``count`` numbers take."""


class ByteCodec(Codec):
    """Packs bytes without loss."""

    lossless = True

    @abstractmethod
    def compress(self, data: bytes) -> bytes:
        """Pack."""

    @abstractmethod
    def decompress(self, data: bytes, limit: int) -> bytes:
        """Unpack; ReplyError where that would not be, or would be more than ``limit`` bytes."""


@dataclass(frozen=True)
class Raw(ValueCodec):
    """Numbers as they are, little-endian."""

    name: ClassVar[str] = "raw"
    lossless = True

    def write(self, x: NDArray, seed: int) -> bytes:
        """The array's memory."""
        return x.tobytes()

    def read(self, data: bytes, count: int, dtype: np.dtype) -> NDArray:
        """A view of the bytes."""
        check_length(self, data, self.num_bytes(count, dtype))
        return np.frombuffer(data, dtype.newbyteorder("<"), count) if count else np.zeros(0, dtype)

    def num_bytes(self, count: int, dtype: np.dtype) -> int:
        """``count`` items."""
        return count * dtype.itemsize


@dataclass(frozen=True)
class Identity(Codec):
    """Every bit, as Flower itself writes arrays; not to be chained."""

    name: ClassVar[str] = "identity"
    lossless = True

    @property
    def stages(self) -> tuple[Codec, ...]:
        """None: see ``wire.pack``."""
        return ()


def check_length(codec: Codec, data: bytes, expected: int) -> None:
    """ReplyError unless there are exactly so many bytes."""
    if len(data) != expected:
        raise ReplyError(f"{codec.name}: {len(data)} bytes, expected {expected}")


def _rank(part: Codec) -> int:
    for rank, kind in enumerate((Sparsifier, ValueCodec, ByteCodec)):
        if isinstance(part, kind):
            return rank
    raise ConfigError(f"a codec must be made of codecs other than identity, got {part!r}")


def _word(value: object) -> str:
    if isinstance(value, str) and not TEXT.fullmatch(value):
        raise ConfigError(f"a codec's text must be made of a-z, 0-9 and _, got {value!r}")
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
