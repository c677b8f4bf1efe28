"""A whole update through its codecs, and back."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from flwr.app import ArrayRecord

from ..records import NDArray, Sparse, Weights, dense, is_inexact
from .options import Compression
from .sparsify import TopK
from .wire import pack, unpack


@dataclass(frozen=True)
class Seed:
    """Equal seeds give equal bytes.

    Parameters
    ----------
    own : str
        Of stochastic rounding: each node's own, so that errors average out.
    common : str
        Of the entries that :class:`RandomK` draws: the same for all nodes of a round.
    """

    own: str = ""
    common: str = ""


NO_SEED = Seed()


def encode_update(update: Weights, how: Compression, seed: Seed = NO_SEED) -> ArrayRecord:
    """Write an update, or a model; arrays that share a :class:`TopK` are cut together.

    Parameters
    ----------
    update : Weights
        Finite where it is floating point.
    how : Compression
        Which codec for which array.
    seed : Seed
        Of stochastic rounding and random choice.
    """
    arrays = {name: np.asarray(x) for name, x in update.items()}
    codecs = {name: how.codec_for(name, x) for name, x in arrays.items()}
    keep: dict[str, NDArray] = {}
    for top in {c.stages[0] for c in codecs.values() if c.stages and isinstance(c.stages[0], TopK)}:
        keep |= top.choose({n: x for n, x in arrays.items() if codecs[n].stages[:1] == (top,)})
    found = {}
    for i, (name, x) in enumerate(arrays.items()):
        own, common = _number(seed.own, i), _number(seed.common, i)
        found[name] = pack(codecs[name], x, own, keep.get(name), common)
    return ArrayRecord(found)


def decode(record: ArrayRecord) -> dict[str, NDArray | Sparse]:
    """Read what :func:`encode_update` wrote."""
    return {name: unpack(array) for name, array in record.items()}


def apply(weights: Weights, update: Mapping[str, NDArray | Sparse]) -> Weights:
    """The weights that an update leads to; bit for bit the same on both ends."""
    return {k: plus(weights[k], d) if is_inexact(d) else dense(d) for k, d in update.items()}


def plus(x: NDArray, d: NDArray | Sparse) -> NDArray:
    """``x + d``."""
    if not isinstance(d, Sparse):
        return np.asarray(x + d, x.dtype)
    total = x.copy().reshape(-1)
    total[d.positions] += d.values
    return total.reshape(x.shape)


def _number(seed: str, index: int) -> int:
    return int.from_bytes(blake2b(f"{seed}/{index}".encode(), digest_size=7).digest(), "little")
