"""Between Flower records and ``{name: ndarray}``, the form that all our maths uses."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any, TypeVar

import ml_dtypes
import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import ArrayLike
from safetensors.numpy import load, save

from .errors import ReplyError

NDArray = npt.NDArray[Any]
Weights = dict[str, NDArray]


@dataclass(frozen=True, eq=False)
class Sparse:
    """Some entries of an array; the others are zero, or unknown.

    Parameters
    ----------
    positions : ndarray
        int64, ascending, in the flattened array.
    values : ndarray
        Those entries.
    shape : tuple of int
        Of the whole array.
    partial : bool
        Whether the others are unknown; default False, they are zero.
    """

    positions: NDArray
    values: NDArray
    shape: tuple[int, ...]
    partial: bool = False

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""
        return self.values.dtype

    def dense(self) -> NDArray:
        """The whole array, made anew."""
        x = np.zeros(int(np.prod(self.shape, dtype=object)), self.dtype)
        x[self.positions] = self.values
        return x.reshape(self.shape)


Update = Mapping[str, NDArray | Sparse]

NUMPY_STYPE = "numpy.ndarray"
"""Flower's own serialization: the bytes of ``np.save``."""

USUAL_HEADER = 128  # bytes, of arrays of few dimensions
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def to_array(x: ArrayLike) -> Array:
    """Pack one array as Flower does: the same bytes, in one copy where ``np.save`` makes three."""
    # asarray: arithmetic on 0-d arrays (BatchNorm counters) yields NumPy scalars, which Array rejects
    array = np.asarray(x)
    if array.dtype.kind not in "biufc" or not array.flags.c_contiguous:
        return Array(array)
    data = b"".join((_written_header(array.dtype, array.shape), array.data))
    return Array(name_of(array.dtype), array.shape, NUMPY_STYPE, data)


def to_record(weights: Mapping[str, ArrayLike]) -> ArrayRecord:
    """Pack weights for the wire."""
    return ArrayRecord({k: to_array(x) for k, x in weights.items()})


def to_weights(record: ArrayRecord) -> Weights:
    """Unpack a record; the arrays are read-only views of its bytes, not copies."""
    return {k: read_numpy(a) for k, a in record.items()}


def read_numpy(array: Array) -> NDArray:
    """Unpack one array without copying it.

    Unlike ``Array.numpy`` it believes nothing: what the bytes' own header says must equal the declared
    dtype and shape and fit the number of bytes, before any memory is taken.

    Raises
    ------
    ReplyError
        Bytes that are not what they are declared to be.
    """
    if array.stype != NUMPY_STYPE:
        raise ReplyError(f"unknown serialization {array.stype!r}, expected {NUMPY_STYPE!r}")
    try:
        shape, fortran, dtype, offset = _header(array.data)
    except Exception as error:  # NumPy's parser raises what it likes on hostile bytes
        raise ReplyError(f"array bytes have no NumPy header: {error}") from error
    if tuple(array.shape) != shape or name_of(dtype) != array.dtype or dtype.hasobject:
        raise ReplyError(f"array is declared as {array.dtype} {tuple(array.shape)} but holds {dtype} {shape}")
    count = math.prod(shape)
    if len(array.data) - offset != count * dtype.itemsize:
        raise ReplyError(f"array of {dtype} {shape} holds {len(array.data) - offset} bytes")
    if count == 0:
        return np.zeros(shape, dtype)
    flat = np.frombuffer(array.data, dtype, count, offset)
    return flat.reshape(shape, order="F" if fortran else "C")


def read_like(
    record: ArrayRecord, like: Mapping[str, NDArray], read: Callable[[Array], NDArray | Sparse] = read_numpy
) -> dict[str, NDArray | Sparse]:
    """Unpack a record whose arrays must be those of a model, and finite.

    Raises
    ------
    ReplyError
        Other names, shapes or dtypes than those of ``like``; NaN or infinite values; what ``read`` refuses.
    """
    if set(record) != set(like):
        missing, extra = sorted(set(like) - set(record)), sorted(set(record) - set(like))
        raise ReplyError(f"its arrays differ in name: missing {missing[:3]}, unknown {extra[:3]}")
    arrays: dict[str, NDArray | Sparse] = {}
    for name, x in like.items():
        array = record[name]
        # declared shape and dtype first: nothing is decoded that would not fit
        if tuple(array.shape) != x.shape or array.dtype != name_of(x.dtype):
            got, want = f"{array.dtype} {tuple(array.shape)}", f"{x.dtype} {x.shape}"
            raise ReplyError(f"its array {name!r} is {got}, expected {want}")
        arrays[name] = read(array)
        if not np.isfinite(values_of(arrays[name])).all():
            raise ReplyError(f"its array {name!r} has NaN or infinite values")
    return arrays


@lru_cache(maxsize=1024)
def _written_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """What ``np.save`` writes before the values of an array in C order."""
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    stream = BytesIO()
    np.lib.format.write_array_header_1_0(stream, described)
    return stream.getvalue()


def _header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, order, dtype, and where the values begin."""
    # a model has a hundred small arrays with few headers, and NumPy compiles each one as Python
    usual = data[:USUAL_HEADER]
    if usual[:8] == b"\x93NUMPY\x01\x00" and int.from_bytes(usual[8:10], "little") == USUAL_HEADER - 10:
        return _parsed(usual)
    return _parse_header(data)


@lru_cache(maxsize=1024)
def _parsed(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    return _parse_header(header)


def _parse_header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    stream = BytesIO(data)  # shares the bytes until someone writes
    shape, fortran, dtype = _HEADERS[np.lib.format.read_magic(stream)](stream)
    return shape, fortran, dtype, stream.tell()


def to_bytes(weights: Weights) -> bytes:
    """Pack arrays into one value of a ConfigRecord, as safetensors."""
    # order="C": safetensors copies memory as it lies, strides unseen
    return save({k: np.asarray(x, order="C") for k, x in weights.items()})


def from_bytes(data: bytes, like: Weights) -> Weights:
    """Inverse of :func:`to_bytes`; the arrays are read-only.

    Parameters
    ----------
    like : Weights
        Whose names, shapes and dtypes they must have.

    Raises
    ------
    ReplyError
        Bytes that are no safetensors, other arrays than those of ``like``, or values that are not finite.
    """
    try:
        arrays: Weights = load(data)
    except Exception as error:  # safetensors' own error, and KeyError for a dtype that NumPy lacks
        raise ReplyError(f"bytes are no safetensors: {' '.join(str(error).split())}") from error
    if arrays.keys() != like.keys():
        raise ReplyError(f"bytes hold other arrays: {', '.join(sorted(arrays.keys() ^ like.keys())[:5])}")
    for k, x in like.items():
        got = arrays[k]
        if (got.shape, got.dtype) != (x.shape, x.dtype):
            raise ReplyError(f"{k!r} must be {x.dtype} {x.shape}, got {got.dtype} {got.shape}")
        if is_inexact(got) and not np.isfinite(got).all():
            raise ReplyError(f"{k!r} must be finite")
    return {k: arrays[k] for k in like}


Kind = TypeVar("Kind", ArrayRecord, ConfigRecord, MetricRecord)


def records_of(content: RecordDict, kind: type[Kind]) -> dict[str, Kind]:
    """The records of one kind, by name; to be read.

    Flower's own views, such as ``content.config_records``, write each record back into what they show: a
    reply is looked at ten times, and that was a fifth of what it cost the server.
    """
    return {name: record for name, record in content.items() if isinstance(record, kind)}


def num_bytes(record: ArrayRecord) -> int:
    """Payload of a record: the bytes of its arrays as they travel, framing not counted."""
    return sum(len(array.data) for array in record.values())


def subtract(local: Weights, base: Weights) -> Weights:
    """The update that leads from ``base`` to ``local``: differences of floats, values of the rest.

    Counters and flags (integers, booleans) have no useful difference: they travel as they are.
    """
    return {k: x - base[k] if is_inexact(x) else x for k, x in local.items()}


def add(base: Weights, update: Weights) -> Weights:
    """Inverse of :func:`subtract`, up to one rounding of the floats."""
    return {k: base[k] + d if is_inexact(d) else d for k, d in update.items()}


def dense(x: NDArray | Sparse) -> NDArray:
    """The whole array."""
    return x.dense() if isinstance(x, Sparse) else x


def values_of(x: NDArray | Sparse) -> NDArray:
    """The entries that are there."""
    return x.values if isinstance(x, Sparse) else x


def densify(update: Update) -> Weights:
    """All arrays whole."""
    return {k: dense(x) for k, x in update.items()}


def is_inexact(x: NDArray | Sparse) -> bool:
    """True for real and complex floating-point arrays, bfloat16 (of ml_dtypes) among them."""
    return x.dtype.kind in "fc" or name_of(x.dtype) == "bfloat16"


@lru_cache(maxsize=1024)
def name_of(dtype: np.dtype[Any]) -> str:
    """What Flower calls a dtype; NumPy makes the text anew each time, which is slower than a small array."""
    return str(dtype)


def largest_of(dtype: np.dtype[Any]) -> float:
    """The largest finite value of a floating-point dtype."""
    return float(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]


def is_real_float(x: NDArray | Sparse) -> bool:
    """True for real floating-point arrays of at most 64 bits."""
    return x.dtype.name in ("float16", "bfloat16", "float32", "float64")
