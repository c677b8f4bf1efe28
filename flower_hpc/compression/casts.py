"""Fewer bits per number: IEEE half precision, and bfloat16 (the upper half of a float32)."""

import sys
from dataclasses import dataclass
from typing import ClassVar

import ml_dtypes
import numpy as np

from ..records import NDArray
from .codec import Unencodable, ValueCodec, check_length

SIGNLESS = np.uint16(0x7FFF)


class _Cast(ValueCodec):
    to: ClassVar[np.dtype]
    infinity: ClassVar[int]
    """Its bits."""

    def write(self, x: NDArray, seed: int) -> bytes:
        """Cast, to the nearest."""
        short = half(x) if self.to == np.float16 else x.astype(self.to)
        # NumPy looks for infinities among halves one by one: their bits are quicker
        if short.size and (short.view(np.uint16) & SIGNLESS).max() >= self.infinity:
            raise Unencodable(f"values beyond {self.to}")
        return short.tobytes()

    def read(self, data: bytes, count: int, dtype: np.dtype) -> NDArray:
        """Cast back."""
        check_length(self, data, self.num_bytes(count, dtype))
        return np.frombuffer(data, self.to, count).astype(dtype) if count else np.zeros(0, dtype)

    def num_bytes(self, count: int, dtype: np.dtype) -> int:
        """Two a number."""
        return 2 * count


@dataclass(frozen=True)
class Float16(_Cast):
    """IEEE half precision: relative error at most 2^-11 from 6.1e-5 to 65504, absolute 3e-8 below.

    An array with larger values travels exactly.
    """

    name: ClassVar[str] = "float16"
    to: ClassVar[np.dtype] = np.dtype("<f2")
    infinity: ClassVar[int] = 0x7C00


@dataclass(frozen=True)
class BFloat16(_Cast):
    """The upper half of a float32: relative error at most 2^-8, the whole range of float32."""

    name: ClassVar[str] = "bfloat16"
    to: ClassVar[np.dtype] = np.dtype(ml_dtypes.bfloat16)
    infinity: ClassVar[int] = 0x7F80


def half(x: NDArray) -> NDArray:
    """``x.astype(float16)``, by torch where it is loaded already: 25 times as fast as NumPy."""
    torch = sys.modules.get("torch")
    if torch is not None and x.dtype == np.float32 and x.flags.writeable:
        found: NDArray = torch.from_numpy(x).half().numpy()
        return found
    with np.errstate(over="ignore"):  # the caller looks for infinities
        return x.astype(np.float16)
