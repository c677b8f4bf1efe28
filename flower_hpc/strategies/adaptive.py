"""Cutoffs that are planned anew for each round, from what the ledger expects of its nodes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .checks import positive, whole
from .cutoff import Cutoff, Deadline, FirstK, Progress, WaitForAll
from .situation import Situation

MEMORY = "adaptive-k"
COST_LEAST, COST_MOST = 0.1, 10.0


@dataclass(frozen=True)
class AdaptiveDeadline(Cutoff):
    """A deadline at a quantile of the predicted times of the round's nodes.

    The practical form of adaptive deadlines (ADEL-FL 2025, https://arxiv.org/abs/2505.23973) for silos:
    predictions are smoothed means of what each node took, nodes without a history count as the median one.

    Parameters
    ----------
    quantile : float
        In (0, 1]; default 0.8: the slowest fifth is expected to be late. 1 is the slowest of all.
    margin : float
        Factor on that time, > 0; default 1.2, since half of all replies take longer than their mean.
    first_s : float, optional
        Deadline of a round of which nothing can be predicted, > 0; default none: it waits for all.
    """

    quantile: float = 0.8
    margin: float = 1.2
    first_s: float | None = None

    def __post_init__(self) -> None:
        positive("quantile", self.quantile, most=1.0)
        positive("margin", self.margin)
        if self.first_s is not None:
            positive("first_s", self.first_s)

    def reason(self, progress: Progress) -> str | None:
        """None: :meth:`plan` says what ends a round."""
        return None

    def plan(self, predicted_s: Sequence[float | None], seen: Situation) -> Cutoff:
        """A fixed deadline."""
        known = [t for t in predicted_s if t is not None]
        if not known:
            return WaitForAll() if self.first_s is None else Deadline(self.first_s)
        # a virtual node may take no time at all
        return Deadline(max(1e-3, self.margin * float(np.quantile(known, self.quantile))))


@dataclass(frozen=True)
class AdaptiveK(Cutoff):
    """FedPA-style: as many of the fastest as make the whole training shortest.

    FedPA (Comput. Netw. 2021) adapts ``k`` to trade the time of a round against the number of rounds; its
    formulas are not public, so this is our controller for its idea. With predicted times
    ``T_(1) <= ... <= T_(m)``

        k = argmin_k  T_(k) (1 + c (1/k - 1/m) s)        s: spread of the updates, variance / squared mean

    moved by at most 1 a round. ``c`` starts at ``cost``, grows by a quarter after a round in which the mean
    training loss rose, shrinks by 5 % else, and stays within [cost/10, 10 cost].

    Parameters
    ----------
    k_min : int
        Never wait for fewer, >= 1; default 2.
    cost : float
        How much more rounds a noisier mean is taken to cost, > 0; default 1.
    """

    k_min: int = 2
    cost: float = 1.0

    def __post_init__(self) -> None:
        whole("k_min", self.k_min)
        positive("cost", self.cost)

    def reason(self, progress: Progress) -> str | None:
        """None: :meth:`plan` says what ends a round."""
        return None

    def plan(self, predicted_s: Sequence[float | None], seen: Situation) -> Cutoff:
        """The first k; everybody while nothing is known of them."""
        known = sorted(t for t in predicted_s if t is not None)
        asked = len(predicted_s)
        if not asked or len(known) < asked or seen.ledger.spread is None:
            return WaitForAll()
        state = seen.keep(MEMORY)
        cost = self._tune(state, seen.ledger.losses)
        best = best_k(known, seen.ledger.spread, cost, min(self.k_min, asked))
        last = state.get("k", asked)
        state["k"] = min(asked, max(last - 1, min(last + 1, best)))
        return FirstK(state["k"])

    def _tune(self, state: dict[str, float], losses: Sequence[float]) -> float:
        cost = state.get("cost", self.cost)
        if len(losses) >= 2:
            cost *= 1.25 if losses[-1] > losses[-2] else 0.95
        state["cost"] = min(COST_MOST * self.cost, max(COST_LEAST * self.cost, cost))
        return state["cost"]


def best_k(times_s: Sequence[float], spread: float, cost: float, least: int) -> int:
    """The ``k >= least`` with the least ``T_(k) (1 + cost (1/k - 1/m) spread)``; ``times_s`` ascend."""
    m = len(times_s)

    def total(k: int) -> float:
        return times_s[k - 1] * (1 + cost * (1 / k - 1 / m) * spread)

    return min(range(least, m + 1), key=lambda k: (total(k), -k)) if m else math.ceil(least)
