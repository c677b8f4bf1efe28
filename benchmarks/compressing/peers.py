"""Other ways to write an update: Flower's, NumPy's cast, zstd; blosc2 and zfpy where they are installed."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from typing import Any

import numpy as np
import zstandard
from flwr.app import Array, ArrayRecord

from flower_hpc.records import NDArray, Weights

SMALL = 1000  # as Compression's: smaller arrays, and what is no float, travel exactly


@dataclass(frozen=True)
class Peer:
    """How one array is written and read; whatever it needs imported has been."""

    write: Callable[[NDArray], bytes]
    read: Callable[[bytes, NDArray], NDArray]

    def encode(self, update: Weights) -> ArrayRecord:
        """A whole update."""
        return ArrayRecord({name: self._pack(x) for name, x in update.items()})

    def decode(self, record: ArrayRecord, like: Weights) -> Weights:
        """And back."""
        return {
            name: array.numpy() if array.stype != "peer" else self.read(array.data, like[name])
            for name, array in record.items()
        }

    def _pack(self, x: NDArray) -> Array:
        if x.dtype != np.float32 or x.size < SMALL:
            return Array(x)
        return Array(x.dtype.name, x.shape, "peer", self.write(x))


def peers() -> dict[str, Peer | None]:
    """By name; None where a library is not installed."""
    found: dict[str, Peer | None] = {
        "np.save (Flower's own)": Peer(save, lambda data, like: read(data)),
        "x.astype(float16), np.save": Peer(
            lambda x: save(x.astype(np.float16)), lambda data, like: read(data).astype(like.dtype)
        ),
        "np.save, zstd 3": Peer(
            lambda x: zstandard.compress(save(x), 3), lambda data, like: read(zstandard.decompress(data))
        ),
        "blosc2 shuffle+zstd, lossless": None,
        "blosc2 trunc to 10 bits, shuffle+zstd": None,
        "zfpy 1-D, tolerance 0.01 max": None,
        "zfpy 1-D, tolerance 0.001 max": None,
    }
    if find_spec("blosc2"):
        blosc2 = import_module("blosc2")
        shuffle, trunc, none = blosc2.Filter.SHUFFLE, blosc2.Filter.TRUNC_PREC, blosc2.Filter.NOFILTER
        found["blosc2 shuffle+zstd, lossless"] = _blosc2(blosc2, [none, shuffle], [0, 0])
        found["blosc2 trunc to 10 bits, shuffle+zstd"] = _blosc2(blosc2, [trunc, shuffle], [10, 0])
    if find_spec("zfpy"):
        zfpy = import_module("zfpy")
        for share in ("0.01", "0.001"):
            found[f"zfpy 1-D, tolerance {share} max"] = _zfpy(zfpy, float(share))
    return found


def save(x: NDArray) -> bytes:
    """What Flower writes."""
    stream = BytesIO()
    np.save(stream, x, allow_pickle=False)
    return stream.getvalue()


def read(data: bytes) -> NDArray:
    """And reads."""
    x: NDArray = np.load(BytesIO(data), allow_pickle=False)
    return x


def _blosc2(blosc2: Any, filters: list[Any], meta: list[int]) -> Peer:
    options = {"codec": blosc2.Codec.ZSTD, "clevel": 3, "filters": filters, "filters_meta": meta}

    def write(x: NDArray) -> bytes:
        packed: bytes = blosc2.compress2(x, typesize=x.itemsize, nthreads=1, **options)
        return packed

    return Peer(
        write, lambda data, like: np.frombuffer(blosc2.decompress2(data), like.dtype).reshape(like.shape)
    )


def _zfpy(zfpy: Any, share: float) -> Peer:
    def write(x: NDArray) -> bytes:
        packed: bytes = zfpy.compress_numpy(x.reshape(-1), tolerance=share * float(np.abs(x).max()))
        return packed

    return Peer(write, lambda data, like: zfpy.decompress_numpy(data).reshape(like.shape))
