"""Error feedback with delivery notes: what a codec drops is kept, and what was sent in vain comes back.

With ``d`` the update, ``e`` the residual, ``C`` the codec and ``D`` its inverse (Karimireddy et al. 2019,
https://arxiv.org/abs/1901.09847):

    p = decay e + d;   send c = C(p);   e <- p - D(c)

Every update bears its message's ticket. The next message lists the tickets that are part of the model, and
those that wait to be; an update with any other was cut off, refused or lost, and ``e <- e + D(c)``.

With momentum ``m`` (Lin et al. 2018, https://arxiv.org/abs/1712.01887, momentum correction and factor
masking): ``u <- m u + d; p = decay e + u``, and ``u`` is zeroed where something was sent.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from flwr.app import ArrayRecord

from ..records import NDArray, Sparse, Weights, dense, is_inexact
from .keeping import LOG
from .options import Compression, is_statistic
from .update import Seed, decode, encode_update, plus

MAX_PENDING = 8


@dataclass
class Feedback:
    """What a node keeps of its updates to one run.

    Parameters
    ----------
    residual, velocity : Weights
        ``e`` and ``u``.
    pending : dict of str to ArrayRecord
        Updates sent, by ticket, of which nothing has been heard.
    """

    residual: Weights = field(default_factory=dict)
    velocity: Weights = field(default_factory=dict)
    pending: dict[str, ArrayRecord] = field(default_factory=dict)

    def hear(self, received: Collection[str], waiting: Collection[str]) -> None:
        """Take in a message's notes: forget what arrived, take back what did not."""
        for ticket in list(self.pending):
            if ticket in received:
                del self.pending[ticket]
            elif ticket not in waiting:
                self._take_back(self.pending.pop(ticket))

    @classmethod
    def of(cls, tree: Any) -> Self:
        """What was kept; anything else starts anew."""
        try:
            arrays = [*tree["residual"].values(), *tree["velocity"].values()]
            sound = all(is_inexact(np.asarray(x)) for x in arrays)
            if sound and all(isinstance(record, ArrayRecord) for record in tree["pending"].values()):
                return cls(tree["residual"], tree["velocity"], tree["pending"])
        except (TypeError, KeyError, AttributeError):
            sound = tree is None
        if tree is not None:
            LOG.warning("what was kept of earlier updates is of another kind, and starts anew")
        return cls()

    def send(self, update: Weights, how: Compression, ticket: str, seed: Seed) -> ArrayRecord:
        """What to send for ``update``, which is finite."""
        with np.errstate(over="ignore", invalid="ignore"):
            full = {k: self._full(k, x, how) for k, x in update.items()}
        if not all(np.isfinite(x).all() for x in full.values()):
            LOG.warning("what was kept of earlier updates grew beyond all bounds, and is dropped")
            self.residual, self.velocity, full = {}, {}, update
        record = encode_update(full, how, seed)
        arrived = decode(record)
        self.residual = {k: remainder(x, arrived[k]) for k, x in full.items() if _remembered(k, x)}
        # what travelled exactly leaves nothing, and nothing need be stored of it
        self.residual = {k: x for k, x in self.residual.items() if x.any()}
        if how.momentum:
            self.velocity = {k: masked(u, arrived[k]) for k, u in self.velocity.items() if k in arrived}
        self.pending[ticket] = record
        while len(self.pending) > MAX_PENDING:  # nobody has told of the first one for long
            self._take_back(self.pending.pop(next(iter(self.pending))))
        return record

    def to_tree(self) -> dict[str, Any]:
        """For the disk."""
        return {"residual": self.residual, "velocity": self.velocity, "pending": self.pending}

    def _full(self, name: str, x: NDArray, how: Compression) -> NDArray:
        if not _remembered(name, x):
            return x
        total = x
        if how.momentum:
            old = self.velocity.get(name)
            if old is not None and old.shape == x.shape:
                total = np.asarray(how.momentum * old + x, x.dtype)
            self.velocity[name] = total
        kept = self.residual.get(name)
        if kept is None or kept.shape != x.shape:  # of another model, or of another part of it
            return total
        # asarray: 0-d arithmetic yields scalars
        return np.asarray(total + (kept if how.decay == 1 else how.decay * kept), x.dtype)

    def _take_back(self, record: ArrayRecord) -> None:
        for name, sent in decode(record).items():
            if not is_inexact(sent) or is_statistic(name):
                continue
            kept = self.residual.get(name)
            if kept is None or kept.shape != sent.shape:
                self.residual[name] = np.array(dense(sent))
            else:
                self.residual[name] = plus(kept, sent)


def remainder(x: NDArray, arrived: NDArray | Sparse) -> NDArray:
    """What the receiver lacks of ``x``."""
    if not isinstance(arrived, Sparse):
        return x - arrived
    left = x.copy().reshape(-1)
    left[arrived.positions] -= arrived.values
    return left.reshape(x.shape)


def masked(u: NDArray, arrived: NDArray | Sparse) -> NDArray:
    """``u``, zero where something was sent."""
    left = u.copy().reshape(-1)
    left[arrived.positions if isinstance(arrived, Sparse) else np.flatnonzero(arrived)] = 0
    return left.reshape(u.shape)


def _remembered(name: str, x: NDArray) -> bool:
    return is_inexact(x) and not is_statistic(name)
