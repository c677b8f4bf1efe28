"""Federated dropout: which part of the model is the smaller model that a node trains.

Units drawn at random (Caldas et al. 2018, https://arxiv.org/abs/1812.07210), the first ones (HeteroFL,
Diao et al. 2021, https://arxiv.org/abs/2010.01264; FjORD, Horvath et al. 2021,
https://arxiv.org/abs/2102.13451), or a window that rolls by one unit a round (FedRolex, Alam et al. 2022, https://arxiv.org/abs/2212.01548).

A model of rate ``r`` has ``ceil(size * r)`` units of each hidden layer; the first layer's inputs and the last
one's outputs stay. Which units these are follows from the run, the round and the node: no mask travels. Where
a dimension's units are is read off the shapes, which is all that a server knows of a model (:func:`layout`).
"""

import hashlib
import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError
from ..records import NDArray, Weights

ORDERS = ("ordered", "rolling", "random")
Shape = tuple[int, ...]
Kept = dict[str, tuple[NDArray, ...]]
"""For each array the indices kept in each of its leading dimensions, ascending; those left out are whole."""

_CELL = re.compile(r"(?:^|\.)(weight|bias)_(ih|hh)(_l\d+)?$")  # as torch's RNN, LSTM and GRU name them
_OPAQUE = re.compile(r"attn|attention|in_proj|(?:weight|bias)_(?:ih|hh|hr)")  # heads, directions, projections


@dataclass(frozen=True)
class Axis:
    """What lies along one dimension: ``blocks * units * inner`` values, units that are kept or dropped.

    Parameters
    ----------
    units : int
        Their number.
    blocks : int
        How often all of them come, one after the other: the gates of a recurrent cell.
    inner : int
        Neighbours that are one unit's: the pixels of a channel, where an image was flattened.
    whole : bool
        True where none is ever dropped.
    """

    units: int
    blocks: int = 1
    inner: int = 1
    whole: bool = False

    def size(self, rate: float = 1.0) -> int:
        """Length of the dimension at a rate."""
        kept = self.units if self.whole else math.ceil(self.units * rate)
        return self.blocks * kept * self.inner

    def left(self, size: int) -> int | None:
        """Units that a dimension of length ``size`` has; None where it cannot be a part of this one."""
        kept, rest = divmod(size, self.blocks * self.inner)
        fits = kept == self.units if self.whole else 1 <= kept <= self.units
        return kept if fits and not rest else None

    def index(self, units: NDArray) -> NDArray:
        """Where the values of some units are."""
        first = np.arange(self.blocks)[:, None, None] * self.units + units[:, None]
        places: NDArray = (first * self.inner + np.arange(self.inner)).ravel()
        return places


def sub_shapes(shapes: Mapping[str, Shape], rate: float) -> dict[str, Shape]:
    """The shapes of the model that has ``rate`` of the units.

    Parameters
    ----------
    shapes : mapping
        Those of the full model, in the order of its state dict.
    rate : float
        In (0, 1].

    Raises
    ------
    ConfigError
        Another rate, or an array that :func:`layout` does not understand.
    """
    if not 0 < rate <= 1:
        raise ConfigError(f"a dropout rate must be in (0, 1], got {rate!r}")
    found = layout(shapes)
    return {k: (*(a.size(rate) for a in found[k]), *shape[len(found[k]) :]) for k, shape in shapes.items()}


def where(
    full: Mapping[str, Shape], sub: Mapping[str, Shape], order: str, *, run: str, round: int, node: str
) -> Kept:
    """The places in the full model that a smaller one of shapes ``sub`` is made of.

    Dimensions of equally many units keep the same ones, so that what is added to each other fits.

    Parameters
    ----------
    full, sub : mapping
        Shapes, in the order of the state dict.
    order : str
        ``ordered``: the first units. ``rolling``: those from unit ``round - 1`` on, around the end; the same
        for all nodes. ``random``: drawn for each run, round and node.
    run, round, node : str, int, str
        Equal ones give equal places, on any machine.

    Raises
    ------
    ConfigError
        An unknown order, shapes that are no part of the full model's, or an array that :func:`layout` does
        not understand.
    """
    if order not in ORDERS:
        raise ConfigError(f"dropout's order must be one of {', '.join(ORDERS)}, got {order!r}")
    if odd := full.keys() ^ sub.keys():
        raise ConfigError(f"a smaller model has the same arrays, not so {', '.join(sorted(odd)[:5])}")
    kept: Kept = {}
    for name, axes in layout(full).items():
        counts = [axis.left(size) for axis, size in zip(axes, sub[name], strict=False)]
        units = [n for n in counts if n is not None]
        if len(units) < len(axes) or sub[name][len(axes) :] != full[name][len(axes) :]:
            raise ConfigError(f"array {name!r} of shape {full[name]} has no part of shape {sub[name]}")
        kept[name] = tuple(
            axis.index(_units(axis.units, n, order, run, round, node))
            for axis, n in zip(axes, units, strict=True)
        )
    return kept


def take(weights: Weights, kept: Kept) -> Weights:
    """The smaller model: copies of the values at those places, contiguous."""
    small: Weights = {}
    for name, indices in kept.items():
        x = weights[name]
        for axis, index in enumerate(indices):
            x = x.take(index, axis) if len(index) < x.shape[axis] else x
        small[name] = np.array(x, order="C")
    return small


def layout(shapes: Mapping[str, Shape]) -> dict[str, tuple[Axis, ...]]:
    """Where the units of each array are: axes of its leading dimensions; those left out are whole.

    Understood are chains of layers in the order of the state dict: convolutions and linear layers as torch
    has them, (out, in, ...), also depthwise, with biases and norms after them; an image flattened into a
    linear layer; projections beside a residual block; an embedding in front; torch's LSTM, GRU and RNN in one
    direction; linear layers alone also as (in, out). Heads of attention and concatenations cannot be seen in
    shapes.

    Raises
    ------
    ConfigError
        Anything else, and layers so square that they can be read in two ways; names the array.
    """
    readings = [dict(zip(shapes, _Reader(shapes, turned).read(), strict=False)) for turned in _turns(shapes)]
    best = max(readings, key=len, default={})
    if len(best) < len(shapes):
        name = list(shapes)[len(best)]
        raise ConfigError(f"dropout cannot tell the units of array {name!r} of shape {shapes[name]}")
    for other in readings:
        odd = next((k for k in other if len(other) == len(best) and other[k] != best[k]), None)
        if odd is not None:
            raise ConfigError(f"dropout cannot tell in from out in array {odd!r} of shape {shapes[odd]}")
    return best


def _units(units: int, kept: int, order: str, run: str, round: int, node: str) -> NDArray:
    if kept == units or order == "ordered":
        return np.arange(kept)
    if order == "rolling":
        return np.sort((np.arange(kept) + round - 1) % units)
    # a hash rather than a generator, whose stream may change with NumPy's versions
    seed = json.dumps([run, round, node, units]).encode()
    keys = np.frombuffer(hashlib.shake_256(seed).digest(8 * units), "<u8")
    return np.sort(np.argsort(keys, kind="stable")[:kept])


def _turns(shapes: Mapping[str, Shape]) -> Iterator[Collection[str]]:
    """Which arrays may be (in, out): none, an embedding in front, or all."""
    layers, names = [k for k, shape in shapes.items() if len(shape) > 1], list(shapes)
    if not layers:
        return
    yield ()
    first = shapes[layers[0]]
    after = names[names.index(layers[0]) + 1 :][:1]
    square_with_bias = len({*first}) == 1 and any(len(shapes[k]) == 1 for k in after)
    if len(first) == 2 and not _CELL.search(layers[0]) and not square_with_bias:
        yield layers[:1]
    if all(len(shapes[k]) == 2 and not _CELL.search(k) for k in layers):
        yield layers


class _Reader:
    """Follows the units from array to array."""

    def __init__(self, shapes: Mapping[str, Shape], turned: Collection[str]) -> None:
        self._shapes, self._turned = shapes, turned
        layers = [k for k, shape in shapes.items() if len(shape) > 1]
        self._last = layers[-1]
        # what norms before the first layer are as long as
        self._made = Axis(shapes[layers[0]][0 if layers[0] in turned else 1], whole=True)
        self._begun = self._image = False
        self._cell = Axis(0)
        self._inputs: set[int] = set()  # of layers so far, what a projection may start from

    def read(self) -> Iterator[tuple[Axis, ...]]:
        """The axes of one array after the other, up to one that is not understood."""
        for name, shape in self._shapes.items():
            axes = self._axes(name, shape)
            if axes is None:
                return
            yield axes

    def _axes(self, name: str, shape: Shape) -> tuple[Axis, ...] | None:
        if cell := _CELL.search(name):
            return self._recurrent(name, shape, cell[1] + cell[2])
        if _OPAQUE.search(name) or 0 in shape:
            return None
        if len(shape) == 1:
            same = shape[0] == self._made.size()
            return (self._made,) if same else (Axis(1),) if shape == (1,) else None
        return self._layer(name, shape) if shape else ()

    def _layer(self, name: str, shape: Shape) -> tuple[Axis, ...] | None:
        turned, image = name in self._turned, len(shape) > 2
        into, out = shape[:2] if turned else shape[1::-1]
        last = name == self._last
        source = self._source(into) or (None if last else self._beside(into, out, image))
        if source is None and self._image and not image and into % self._made.units == 0:
            source = Axis(self._made.units, inner=into // self._made.units)
        if source is None:
            return None
        self._begun, self._image, self._made = True, image, Axis(out, whole=last)
        self._inputs |= set() if source.whole else {source.size()}
        return (source, self._made) if turned else (self._made, source)

    def _source(self, into: int) -> Axis | None:
        return Axis(into, whole=not self._begun) if into == self._made.units else None

    def _beside(self, into: int, out: int, image: bool) -> Axis | None:
        # its sum with what was made, or one channel at a time of that
        tied = self._begun and out == self._made.units and image == self._image
        return Axis(into) if tied and (into in self._inputs or (image and into == 1)) else None

    def _recurrent(self, name: str, shape: Shape, kind: str) -> tuple[Axis, ...] | None:
        if kind == "weightih":
            square = self._shapes.get(name.replace("weight_ih", "weight_hh"), ())
            source = self._source(shape[-1])
            if len(shape) != 2 or len(square) != 2 or square[0] != shape[0] or source is None:
                return None
            self._cell = Axis(square[1], blocks=shape[0] // max(1, square[1]))
            self._begun, self._image, self._made = True, False, Axis(square[1])
            axes: tuple[Axis, ...] = (self._cell, source)
        else:
            axes = (self._cell, Axis(self._cell.units)) if kind == "weighthh" else (self._cell,)
        # a state that is the output cannot shrink
        return axes if tuple(a.size() for a in axes) == shape and name != self._last else None
