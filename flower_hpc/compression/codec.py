"""Array codecs: one ndarray in, a Flower Array out, and back.

A codec's ``stype`` is its permanent name on the wire: a receiver needs nothing else to decode.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from flwr.app import Array

from ..errors import ReplyError
from ..records import NUMPY_STYPE, NDArray, read_numpy


class Codec(Protocol):
    """One way to write an array."""

    stype: ClassVar[str]

    def encode(self, x: NDArray) -> Array:
        """Write ``x``, any shape and dtype."""
        ...

    @staticmethod
    def decode(array: Array) -> NDArray:
        """Read what :meth:`encode` wrote; raises ReplyError where it cannot."""
        ...


@dataclass(frozen=True)
class Identity:
    """Every bit, as Flower itself writes arrays."""

    stype: ClassVar[str] = NUMPY_STYPE

    def encode(self, x: NDArray) -> Array:
        """Write ``x`` unchanged."""
        return Array(np.asarray(x))

    @staticmethod
    def decode(array: Array) -> NDArray:
        """Read ``array``, as a read-only view of its bytes."""
        return read_numpy(array)


CODECS: dict[str, type[Codec]] = {codec.stype: codec for codec in (Identity,)}


def pack(codec: Codec, x: NDArray) -> Array:
    """Write one array."""
    return codec.encode(x)


def unpack(array: Array) -> NDArray:
    """Read one array, whichever codec wrote it.

    Raises
    ------
    ReplyError
        An unknown ``stype``, or bytes that are not what they are declared to be.
    """
    codec = CODECS.get(array.stype)
    if codec is None:
        raise ReplyError(f"unknown codec {array.stype!r}, expected one of {sorted(CODECS)}")
    return codec.decode(array)
