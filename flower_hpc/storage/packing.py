"""A tree of plain values and arrays as one JSON text and named arrays, and back: what checkpoints hold."""

import ast
import importlib
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord

from ..records import NDArray

MAX_DEPTH = 100
NATIVE = {"|b1": "BOOL", "|u1": "U8", "|i1": "I8", "<f2": "F16", "<f4": "F32", "<f8": "F64"} | {
    f"<{kind}{size}": f"{kind.upper()}{8 * size}" for kind in "iu" for size in (2, 4, 8)
}
"""NumPy's name of a dtype -> safetensors'; other dtypes travel as uint8."""


def pack(tree: Any) -> tuple[str, dict[str, NDArray]]:
    """Split a state into a JSON text (ASCII) and its arrays, which are copied only if they are strided.

    A tree is made of dict, list, tuple, None, bool, int, float, str, bytes, NumPy arrays and scalars that
    hold no objects, and Flower's ArrayRecord; subclasses of these are refused, for they would not come back.

    Raises
    ------
    TypeError
        Anything else, or more than 100 levels; the message names the place, as in ``state['rng'][1]``.
    """
    arrays: dict[str, NDArray] = {}
    text = json.dumps(_write(tree, None, 1, arrays), allow_nan=False, separators=(",", ":"))
    return text, arrays


def unpack(text: str, arrays: dict[str, NDArray]) -> Any:
    """Inverse of :func:`pack`; the arrays of the tree are views of ``arrays``."""

    def read(node: dict[str, Any]) -> Any:  # innermost first: what it gets is read already
        [(tag, value)] = node.items()
        if tag == "array":
            key, dtype, shape, order = value
            return np.ndarray(shape, _read_dtype(dtype), raw(arrays[key]), order=order)
        if tag == "record":
            return ArrayRecord(
                {n: Array(dtype, tuple(shape), s, arrays[k].tobytes()) for n, dtype, shape, s, k in value}
            )
        if tag == "scalar":
            dtype, data = value
            return np.ndarray((), _read_dtype(dtype), bytearray.fromhex(data))[()]
        return _READ[tag](value)

    return json.loads(text, object_hook=read)


_READ: dict[str, Callable[[Any], Any]] = {
    "dict": dict,
    "tuple": tuple,
    "float": float,
    "int": lambda digits: int(digits, 16),
    "bytes": bytes.fromhex,
}


_Path = tuple[Any, object] | None
"""The way to a place: that of what it is in, and its key there; put into words only where it is needed."""


def _words(path: _Path) -> list[str]:
    return ["state"] if path is None else [*_words(path[0]), f"[{path[1]!r}]"]


def _write(x: Any, path: _Path, depth: int, arrays: dict[str, NDArray]) -> Any:
    if depth > MAX_DEPTH:
        raise TypeError(f"{''.join(_words(path)[:4])}... is nested more than {MAX_DEPTH} levels deep")
    kind = type(x)
    if _is_json(x):
        return x
    if kind is int:  # hex: Python refuses to read very long decimals
        return {"int": hex(x)}
    if kind is float:
        return {"float": str(x)}
    if kind is bytes:
        return {"bytes": x.hex()}
    if kind in (list, tuple):
        items = [v if _is_json(v) else _write(v, (path, i), depth + 1, arrays) for i, v in enumerate(x)]
        return items if kind is list else {"tuple": items}
    if kind is dict:
        # most are plain: without a call each, a checkpoint of many nodes takes half the time
        return {
            "dict": [
                [one if _is_json(one) else _write(one, (path, k), depth + 1, arrays) for one in (k, v)]
                for k, v in x.items()
            ]
        }
    if kind is ArrayRecord:
        return {"record": [[name, *_write_wire(array, arrays)] for name, array in x.items()]}
    if isinstance(x, np.generic) and not x.dtype.hasobject:
        return {"scalar": [_write_dtype(x.dtype, path), x.tobytes().hex()]}
    if kind is np.ndarray and not x.dtype.hasobject:
        return {"array": _write_array(x, path, arrays)}
    what = f"an array of {x.dtype}" if kind is np.ndarray else f"a {kind.__module__}.{kind.__qualname__}"
    raise TypeError(f"{''.join(_words(path))} is {what}, which a checkpoint cannot hold")


def _is_json(x: Any) -> bool:
    """Whether JSON gives back exactly this."""
    kind = type(x)
    if kind is float:
        return math.isfinite(x)
    return kind is str or x is None or kind is bool or (kind is int and abs(x) < 2**64)


def _write_array(x: NDArray, path: _Path, arrays: dict[str, NDArray]) -> list[Any]:
    # the order is kept: sums over another one differ in their last bits
    fortran = x.flags.f_contiguous and not x.flags.c_contiguous
    flat = x.T if fortran else x if x.flags.c_contiguous else x.copy(order="C")
    key = str(len(arrays))
    arrays[key] = flat if x.dtype.str in NATIVE else raw(flat)
    return [key, _write_dtype(x.dtype, path), list(x.shape), "F" if fortran else "C"]


def _write_wire(array: Array, arrays: dict[str, NDArray]) -> list[Any]:
    key = str(len(arrays))
    arrays[key] = np.frombuffer(array.data, np.uint8)  # as serialized: equal bytes, and no copy
    return [array.dtype, [int(n) for n in array.shape], array.stype, key]


def _write_dtype(dtype: np.dtype[Any], path: _Path) -> str:
    if dtype.type.__module__ == "ml_dtypes":  # NumPy has no text for bfloat16 and its kin
        return f"ml_dtypes.{dtype.name}"
    try:
        return repr(np.lib.format.dtype_to_descr(dtype))
    except ValueError as error:
        raise TypeError(f"{''.join(_words(path))} has a dtype that cannot be written: {error}") from error


def _read_dtype(text: str) -> np.dtype[Any]:
    if text.startswith("ml_dtypes."):
        text = getattr(importlib.import_module("ml_dtypes"), text.removeprefix("ml_dtypes."))
        return np.dtype(text)
    dtype: np.dtype[Any] = np.lib.format.descr_to_dtype(ast.literal_eval(text))
    return dtype


def raw(x: NDArray) -> NDArray:
    """The bytes of a C-contiguous array, not copied."""
    return x.reshape(-1).view(np.uint8) if x.nbytes else np.zeros(0, np.uint8)
