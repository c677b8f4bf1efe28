"""Federated dropout in the loop: each node is sent its part of the model; its update goes to those places."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord

from ...compression import Compression
from ...compression.dropout import Kept, Shape, sub_shapes, take, where
from ...compression.update import Seed, encode_update
from ...errors import ReplyError
from ...protocol import MOVING, WIDTH
from ...records import NDArray, Sparse, Update, Weights, dense, is_inexact, subtract
from ..dropout import FederatedDropout
from ..situation import Situation
from ..work import Assignment
from .collect import Flight
from .pots import Model


@dataclass
class Submodels:
    """Cuts parts out of the model, and says where they belong.

    Parameters
    ----------
    dropout : FederatedDropout
        Rates and order.
    how : Compression
        Its ``down``: how the part travels.
    model : Weights
        The full one.
    run : str
        The run's name, from which random parts follow.

    Raises
    ------
    ConfigError
        A model whose parts are not understood.
    """

    dropout: FederatedDropout
    how: Compression
    model: Weights
    run: str

    def __post_init__(self) -> None:
        self._full: dict[str, Shape] = {k: x.shape for k, x in self.model.items()}
        self._shapes = {rate: sub_shapes(self._full, rate) for rate in self.dropout.rates}

    def rates(self, nodes: Sequence[str], seen: Situation) -> dict[str, float]:
        """How much of the model each node gets."""
        return self.dropout.rate(nodes, seen)

    def pack(
        self, node: str, number: int, rate: float, model: Model, *, plain: bool
    ) -> tuple[ArrayRecord, Assignment]:
        """A node's part in round ``number``, exact if ``plain``, and what its message must say of it."""
        part = take(model.weights, self._kept(node, number, rate))
        how = Compression() if plain else self.how.downward
        asks = {WIDTH: rate, MOVING: self.dropout.order != "ordered"}
        return encode_update(part, how, Seed(f"down/{model.version}/{node}")), asks

    def like(self, flight: Flight) -> Weights:
        """Arrays of the shapes that a reply must have; they take no memory."""
        shapes = self._shapes[flight.rate]
        return {k: np.broadcast_to(np.zeros((), x.dtype), shapes[k]) for k, x in self.model.items()}

    def widen(self, arrays: Update, is_update: bool, flight: Flight, base: Weights | None) -> Update:
        """A reply as an update of the full model, partial where it has not all of an array.

        Parameters
        ----------
        base : Weights or None
            The full model that its node was sent a part of; needed where the reply holds weights.
        """
        kept = self._kept(flight.node.name, flight.round, flight.rate)
        if not is_update:
            if base is None:
                raise ReplyError(f"it holds weights of model version {flight.version}, which is gone")
            arrays = subtract({k: dense(x) for k, x in arrays.items()}, take(base, kept))
        return {k: self._place(x, self._full[k], kept[k]) for k, x in arrays.items()}

    def _kept(self, node: str, number: int, rate: float) -> Kept:
        order = self.dropout.order
        return where(self._full, self._shapes[rate], order, run=self.run, round=number, node=node)

    def _place(self, x: NDArray | Sparse, shape: Shape, kept: tuple[NDArray, ...]) -> NDArray | Sparse:
        if x.shape == shape or not is_inexact(x):
            return x
        return Sparse(positions(shape, kept), dense(x).reshape(-1), shape, partial=True)


def positions(shape: Shape, kept: Sequence[NDArray]) -> NDArray:
    """Flat positions, ascending, of the entries with these indices in the leading dimensions."""
    found = np.zeros(1, np.int64)
    for axis, size in enumerate(shape):
        index = kept[axis] if axis < len(kept) else np.arange(size)
        found = (found[:, None] * size + index).reshape(-1)
    return found
