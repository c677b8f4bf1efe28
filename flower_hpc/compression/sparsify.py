"""Few entries in place of all: the largest ones, or some drawn at random."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import ClassVar

import numpy as np

from ..errors import ConfigError, ReplyError
from ..records import NDArray, largest_of
from .codec import Sparsifier, Unencodable
from .positions import most_bytes, read_positions, write_positions

SCOPES = ("model", "array")
SAMPLED = 1 << 16  # arrays larger than this are cut at a threshold from a sample first
SAMPLE = 1 << 15
BLOCK = 1 << 17
RANDOM_HEAD = struct.Struct("<QQ")  # count, key


@dataclass(frozen=True)
class TopK(Sparsifier):
    """The entries of largest magnitude (Aji & Heafield 2017, https://arxiv.org/abs/1704.05021).

    What it drops must be kept and added next time (error feedback), which ``CompressUpdates`` does.

    Parameters
    ----------
    ratio : float
        Share of the entries that is kept, in (0, 1]; default 0.01. At least one.
    scope : str
        ``model`` (default): the largest of all compressed arrays together, so that some may send nothing; or
        ``array``: of each.
    """

    name: ClassVar[str] = "topk"
    ratio: float = 0.01
    scope: str = "model"

    def __post_init__(self) -> None:
        check_ratio(self.ratio)
        if self.scope not in SCOPES:
            raise ConfigError(f"scope must be one of {', '.join(SCOPES)}, got {self.scope!r}")

    def choose(self, arrays: Mapping[str, NDArray]) -> dict[str, NDArray]:
        """Flat positions to keep of each array, by the scope."""
        if self.scope == "array":
            return {k: largest(x.reshape(-1), kept(self.ratio, x.size)) for k, x in arrays.items()}
        if not arrays:
            return {}
        wide = np.float64 if any(x.dtype == np.float64 for x in arrays.values()) else np.float32
        flat = np.concatenate([x.reshape(-1).astype(wide, copy=False) for x in arrays.values()])
        found = largest(flat, kept(self.ratio, flat.size))
        ends = np.cumsum([x.size for x in arrays.values()])
        parts = np.split(found, np.searchsorted(found, ends[:-1]))
        found_in = zip(arrays.items(), parts, ends, strict=True)
        return {name: part - (end - x.size) for (name, x), part, end in found_in}

    def split(self, x: NDArray, seed: int, keep: NDArray | None) -> tuple[bytes, NDArray]:
        """The largest, unless they were chosen already."""
        where = largest(x, kept(self.ratio, x.size)) if keep is None else keep
        return write_positions(where, x.size), x[where]

    def positions(self, head: bytes, size: int) -> NDArray:
        """As written."""
        return read_positions(head, size)

    def head_bytes(self, size: int) -> int:
        """Those of a bitmap."""
        return most_bytes(size)


@dataclass(frozen=True)
class RandomK(Sparsifier):
    """Entries drawn at random, one of each stretch of ``1 / ratio``; their places cost 16 bytes in all.

    All nodes that are asked in a round send the same entries.

    Parameters
    ----------
    ratio : float
        Share of the entries that is kept, in (0, 1]; default 0.01. At least one.
    seed : int
        Mixed with that of the round; default 0.
    unbiased : bool
        Whether values are multiplied by the length of their stretch, so that the mean over seeds is the
        array itself, and nothing is kept for the next time; default False.
    """

    name: ClassVar[str] = "randomk"
    ratio: float = 0.01
    seed: int = 0
    unbiased: bool = False

    def __post_init__(self) -> None:
        check_ratio(self.ratio)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed must be a whole number in [0, 2^63), got {self.seed!r}")
        if not isinstance(self.unbiased, bool):
            raise ConfigError(f"unbiased must be true or false, got {self.unbiased!r}")

    def split(self, x: NDArray, seed: int, keep: NDArray | None) -> tuple[bytes, NDArray]:
        """Draw."""
        key = int.from_bytes(blake2b(f"{self.seed}/{seed}".encode(), digest_size=8).digest(), "little")
        count, largest = kept(self.ratio, x.size), largest_of(x.dtype) / 4
        if self.unbiased and x.size and float(np.abs(x).max()) * x.size / count > largest:
            raise Unencodable(f"values that times {x.size // count} are beyond {x.dtype}")
        head = RANDOM_HEAD.pack(count, key)
        return head, x[self.positions(head, x.size)]

    def positions(self, head: bytes, size: int) -> NDArray:
        """Draw again."""
        if len(head) != RANDOM_HEAD.size:
            raise ReplyError(f"{self.name}: {len(head)} bytes, expected {RANDOM_HEAD.size}")
        count, key = RANDOM_HEAD.unpack(head)
        if count > size:
            raise ReplyError(f"{self.name}: {count} positions of {size}")
        starts, lengths = _stretches(count, size)
        # raw bits: NumPy promises these for ever, other draws only for one version
        draws = np.random.Philox(key=key).random_raw(count) >> np.uint64(11)
        offsets = (draws.astype(np.float64) * 2.0**-53 * lengths).astype(np.int64)
        where: NDArray = starts + offsets
        return where

    def head_bytes(self, size: int) -> int:
        """Sixteen."""
        return RANDOM_HEAD.size

    def scale(self, values: NDArray, where: NDArray, size: int) -> NDArray:
        """Times the length of the stretch, where that is asked for."""
        if not self.unbiased:
            return values
        return (values * _stretches(len(where), size)[1]).astype(values.dtype)


def check_ratio(ratio: float) -> None:
    """ConfigError unless it is a number in (0, 1]."""
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio <= 1:
        raise ConfigError(f"ratio must be in (0, 1], got {ratio!r}")


def kept(ratio: float, size: int) -> int:
    """How many of ``size`` entries: at least one, unless there is none."""
    return min(size, max(1, round(ratio * size)))


def largest(x: NDArray, count: int) -> NDArray:
    """Positions of the ``count`` entries of largest magnitude, ascending; of equal ones the first."""
    size = x.size
    if count >= size:
        return np.arange(size)
    found = _candidates(x, count) if size > SAMPLED else None
    magnitude = _magnitude(x if found is None else x[found])
    cut = np.partition(magnitude, magnitude.size - count)[magnitude.size - count]
    keep = magnitude > cut
    ties = np.flatnonzero(magnitude == cut)
    keep[ties[: count - np.count_nonzero(keep)]] = True
    return np.flatnonzero(keep) if found is None else found[keep]


def _candidates(x: NDArray, count: int) -> NDArray | None:
    """Positions of a few more than the ``count`` largest, by a threshold from a sample; None if it fails."""
    sample = _magnitude(x[:: x.size // SAMPLE])
    expected = count / x.size * len(sample)
    # a little lower than the sample says: too few would mean to begin again
    rank = int(expected + 4 * np.sqrt(expected) + 8)
    if rank >= len(sample):
        return None
    low = np.partition(sample, len(sample) - rank)[len(sample) - rank]
    # in blocks: a copy of all magnitudes costs more than the rest
    starts = range(0, x.size, BLOCK)
    parts = [np.flatnonzero(_magnitude(x[i : i + BLOCK]) >= low) + i for i in starts]
    found = np.concatenate(parts)
    return found if len(found) >= count else None


def _magnitude(x: NDArray) -> NDArray:
    found: NDArray = np.abs(x if x.dtype.kind == "f" else x.astype(np.float32))
    return found


def _stretches(count: int, size: int) -> tuple[NDArray, NDArray]:
    bounds = np.arange(count + 1, dtype=np.int64) * size // max(1, count)
    return bounds[:-1], np.diff(bounds)
