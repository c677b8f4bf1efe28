"""Codecs by name, and arrays as they travel: ``pack`` writes one, ``unpack`` reads it, whoever wrote it."""

import ast
import re
from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Any

import numpy as np
from flwr.app import Array

from ..errors import ConfigError, ReplyError
from ..records import NUMPY_STYPE, NDArray, Sparse, is_real_float, largest_of, read_numpy, to_array
from .bounded import ErrorBounded
from .casts import BFloat16, Float16
from .codec import PREFIX, Chain, Codec, Identity, Raw, Unencodable
from .lossless import Shuffle, Zstd
from .quantize import Int4, Int8
from .sparsify import RandomK, TopK

CODECS: dict[str, Callable[..., Codec]] = {
    c.name: c
    for c in (Identity, Raw, Float16, BFloat16, Int8, Int4, ErrorBounded, TopK, RandomK, Shuffle, Zstd)
}
DTYPES = {name: np.dtype(name) for name in ("float16", "bfloat16", "float32", "float64")}
LONGEST = 200
STAGE = re.compile(r"([a-z0-9_]+)(?:\(([^()]*)\))?")
NPY_HEADER = 128


def parse(text: str) -> Codec:
    """The codec that a text describes, such as ``topk(0.01) >> int8 >> zstd(level=3)``.

    Raises
    ------
    ConfigError
        In one line: an unknown name, a wrong parameter, a wrong order.
    """
    if len(text) > LONGEST:
        raise ConfigError(f"a codec's text must have at most {LONGEST} characters, got {len(text)}")
    return _parse(text)


@lru_cache(maxsize=256)
def _parse(text: str) -> Codec:
    parts = [_stage(part.strip()) for part in text.split(">>")]
    return parts[0] if len(parts) == 1 else Chain(tuple(parts))


def _stage(text: str) -> Codec:
    match = STAGE.fullmatch(text)
    make = CODECS.get(match[1]) if match else None
    if match is None or make is None:
        raise ConfigError(f"codec {text!r} is unknown, known are {', '.join(CODECS)}")
    values: list[Any] = []
    named: dict[str, Any] = {}
    for word in filter(None, (w.strip() for w in (match[2] or "").split(","))):
        key, equals, value = (part.strip() for part in word.rpartition("="))
        if equals:
            if key in named:
                raise ConfigError(f"codec {text!r}: {key} is given twice")
            named[key] = _literal(value)
        else:
            values.append(_literal(value))
    try:
        return make(*values, **named)
    except TypeError as error:
        words = re.sub(r"^.*__init__\(\)", "it", str(error))
        raise ConfigError(f"codec {text!r}: {words}") from error


def _literal(word: str) -> Any:
    if word in ("true", "false"):
        return word == "true"
    try:
        value = ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word  # a text: nearest, array
    return value if isinstance(value, bool | int | float | str) else word


def pack(
    codec: Codec, x: NDArray, seed: int = 0, keep: NDArray | None = None, common: int | None = None
) -> Array:
    """Write one array; exactly, where the codec cannot write it or would not make it smaller.

    Parameters
    ----------
    codec : Codec
        How.
    x : ndarray
        Any. Integers, complex numbers and values that are not finite travel exactly.
    seed, keep, common
        See :meth:`Codec.encode`.
    """
    x = np.asarray(x)
    # lossy codecs would spoil what is not finite, and hide it from the server
    if codec.stages and is_real_float(x) and (codec.lossless or within_range(x)):
        try:
            data = codec.encode(x, seed, keep, common)
        except Unencodable:
            return plain(x)
        if len(data) <= x.nbytes + NPY_HEADER:
            return Array(x.dtype.name, x.shape, codec.stype, data)
    return plain(x)


def within_range(x: NDArray) -> bool:
    """Whether all values are finite, and too far from their dtype's end for rounding to take them beyond."""
    return not x.size or max(float(x.max()), -float(x.min())) <= largest_of(x.dtype) / 2


def plain(x: NDArray) -> Array:
    """An array as Flower writes it; of bfloat16, which ``np.save`` cannot, as raw bytes."""
    if x.dtype.name == "bfloat16":
        return Array(x.dtype.name, x.shape, Raw().stype, Raw().encode(x))
    return to_array(x)


def unpack(array: Array, allowed: Collection[str] | None = None) -> NDArray | Sparse:
    """Read one array, whichever codec wrote it.

    Its declared dtype and shape bound the memory that this takes: compare them with the model's before.

    Parameters
    ----------
    array : Array
        As received; nothing about it is believed.
    allowed : collection of str, optional
        Names of the codecs that may occur; default all. Arrays that travel exactly always may.

    Raises
    ------
    ReplyError
        An unknown or disallowed ``stype``, or bytes that are not what they are declared to be.
    """
    if array.stype == NUMPY_STYPE:
        return read_numpy(array)
    codec = reader(array.stype)
    others = {stage.name for stage in codec.stages} - {*(allowed or CODECS), Raw.name}
    if others:
        words = f"codec {', '.join(sorted(others))} is not allowed"
        raise ReplyError(f"{words}, allowed are {', '.join(sorted(allowed or ()))}")
    dtype = DTYPES.get(array.dtype)
    if dtype is None:
        raise ReplyError(f"codec {array.stype!r} cannot hold {array.dtype}")
    return codec.decode(array.data, tuple(array.shape), dtype)


def reader(stype: str) -> Codec:
    """The codec that an ``stype`` names; ReplyError for an unknown one."""
    if not stype.startswith(PREFIX):
        raise ReplyError(f"unknown codec {stype[:LONGEST]!r}, expected {NUMPY_STYPE!r} or {PREFIX!r}...")
    try:
        codec = parse(stype.removeprefix(PREFIX))
        if not codec.stages:
            raise ConfigError("identity has no bytes of its own")
    except ConfigError as error:
        raise ReplyError(f"unknown codec {stype[:LONGEST]!r}: {error}") from error
    return codec
