"""Integers with one scale a bucket (QSGD, Alistarh et al. 2017, https://arxiv.org/abs/1610.02132).

For each bucket ``scale = max |x| / L`` (``L`` = 127 or 7) and ``x ~ scale * round(x / scale)``. To the
nearest, the error is at most ``scale / 2``; stochastic rounding is unbiased, its error below ``scale``.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import ConfigError, ReplyError
from ..records import NDArray
from .codec import Unencodable, ValueCodec, check_length

ROUNDINGS = ("nearest", "stochastic")
BLOCK = 1 << 16  # elements at a time, which stay in the cache
LEAST_SCALE = 1e-37  # float32 has less than its 24 bits below: such buckets count as zeros
MAX_BUCKET = 1 << 20


@dataclass(frozen=True)
class _Buckets(ValueCodec):
    levels: ClassVar[int]

    bucket: int = 1024
    rounding: str = "nearest"

    def __post_init__(self) -> None:
        if type(self.bucket) is not int or not 8 <= self.bucket <= MAX_BUCKET:
            raise ConfigError(f"bucket must be a whole number in [8, {MAX_BUCKET}], got {self.bucket!r}")
        if self.rounding not in ROUNDINGS:
            raise ConfigError(f"rounding must be one of {', '.join(ROUNDINGS)}, got {self.rounding!r}")

    @property
    def unbiased(self) -> bool:  # type: ignore[override]
        """With stochastic rounding."""
        return self.rounding == "stochastic"

    def write(self, x: NDArray, seed: int) -> bytes:
        """Scales (float32), then the integers."""
        work = x if x.dtype == np.float64 else x.astype(np.float32, copy=False)
        scales = np.empty(self._buckets(x.size), "<f4")
        out = np.empty(x.size, np.int8)
        rng = np.random.Generator(np.random.SFC64(seed)) if self.unbiased else None
        step = max(self.bucket, BLOCK // self.bucket * self.bucket)
        for start in range(0, x.size, step):
            part = work[start : start + step]
            whole = part.size // self.bucket * self.bucket
            # whole buckets together, then the last one, which may be shorter
            for rows in (part[:whole].reshape(-1, self.bucket), part[None, whole:]):
                if rows.size:
                    first = start // self.bucket
                    scale, q = self._quantise(rows, rng)
                    scales[first : first + len(rows)] = scale
                    out[start : start + rows.size] = q.reshape(-1)
                    start += rows.size
        return scales.tobytes() + self._narrow(out)

    def read(self, data: bytes, count: int, dtype: np.dtype) -> NDArray:
        """Multiply out."""
        check_length(self, data, self.num_bytes(count, dtype))
        buckets = self._buckets(count)
        scales = np.frombuffer(data, "<f4", buckets)
        if not (np.isfinite(scales) & (scales >= 0)).all():
            raise ReplyError(f"{self.name}: a scale is negative or not finite")
        q = self._widen(data[4 * buckets :], count)
        work = np.dtype(np.float64 if dtype == np.float64 else np.float32)
        out, whole = np.empty(count, work), count // self.bucket * self.bucket
        rows = out[:whole].reshape(-1, self.bucket)
        np.multiply(q[:whole].reshape(-1, self.bucket), scales[: len(rows), None], out=rows)
        if whole < count:
            np.multiply(q[whole:], scales[-1], out=out[whole:])
        return out.astype(dtype, copy=False)

    def num_bytes(self, count: int, dtype: np.dtype) -> int:
        """A scale a bucket, and the integers."""
        return 4 * self._buckets(count) + self._packed(count)

    def _buckets(self, count: int) -> int:
        return -(-count // self.bucket)

    def _quantise(self, rows: NDArray, rng: np.random.Generator | None) -> tuple[NDArray, NDArray]:
        top = np.maximum(rows.max(axis=1), -rows.min(axis=1))
        with np.errstate(over="ignore"):
            scale = (top / self.levels).astype(np.float32)
        if not np.isfinite(scale).all():
            raise Unencodable("values beyond float32")
        scale[scale < LEAST_SCALE] = 0
        inverse = np.divide(1, scale, out=np.zeros(len(rows), rows.dtype), where=scale > 0)
        q = rows * inverse[:, None]
        if rng is None:
            return scale, np.rint(q, out=q)
        q += rng.random(q.shape, np.float32)
        np.floor(q, out=q)
        # the largest, rounded up, may be one too many
        return scale, np.clip(q, -self.levels, self.levels, out=q)

    def _packed(self, count: int) -> int:
        return count

    def _narrow(self, q: NDArray) -> bytes:
        return q.tobytes()

    def _widen(self, data: bytes, count: int) -> NDArray:
        return np.frombuffer(data, np.int8, count) if count else np.zeros(0, np.int8)


@dataclass(frozen=True)
class Int8(_Buckets):
    """8-bit integers with one float32 scale a bucket: 4 times smaller than float32.

    The error of a number is at most ``max |x| / 254`` of its bucket (``/ 127`` stochastic).

    Parameters
    ----------
    bucket : int
        Numbers a scale, in [8, 1048576]; default 1024.
    rounding : str
        ``nearest`` (default), or ``stochastic``, which is unbiased.
    """

    name: ClassVar[str] = "int8"
    levels: ClassVar[int] = 127


@dataclass(frozen=True)
class Int4(_Buckets):
    """4-bit integers with one float32 scale a bucket: 8 times smaller than float32.

    The error of a number is at most ``max |x| / 14`` of its bucket (``/ 7`` stochastic).

    Parameters
    ----------
    bucket : int
        Numbers a scale, in [8, 1048576]; default 256.
    rounding : str
        ``nearest`` (default), or ``stochastic``, which is unbiased.
    """

    name: ClassVar[str] = "int4"
    levels: ClassVar[int] = 7
    bucket: int = 256

    def _packed(self, count: int) -> int:
        return (count + 1) // 2

    def _narrow(self, q: NDArray) -> bytes:
        nibbles = (np.append(q, np.int8(0)) if q.size % 2 else q).view(np.uint8) & 15
        return (nibbles[::2] | nibbles[1::2] << 4).tobytes()

    def _widen(self, data: bytes, count: int) -> NDArray:
        pairs = np.frombuffer(data, np.int8, self._packed(count)) if count else np.zeros(0, np.int8)
        out = np.empty(2 * pairs.size, np.int8)
        out[::2] = (pairs << 4) >> 4  # shifts of int8 keep the sign
        out[1::2] = pairs >> 4
        return out[:count]
