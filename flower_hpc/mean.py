"""The weighted mean of replies, one at a time: memory is one model, however many nodes reply.

``x`` of reply i is its weights ``w_i``, or its update ``d_i`` against the version that it started from. With
weights ``c_i`` that are normalised once, by their sum ``C`` (algorithm 1 of McMahan et al. 2017):

    new = sum_i (c_i / C) x_i  +  (sum of c_i over updates / C) * current

so that replies of both forms mix, and fresh weights give exactly FedAvg's mean. The sum is kept as a running
mean in float64 (complex128), which cannot overflow where the inputs do not.

A sparse array costs its entries, not the model: what the others would be multiplied by is remembered as one
factor. Of a partial array (federated dropout) each entry's mean is over the replies that have it.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flwr.app import MetricRecord

from .errors import ReplyError
from .records import NDArray, Sparse, Update, Weights, dense, is_inexact, values_of

LARGEST = 1e200
MOST_EXAMPLES = 1e15
LARGE, LEAST_FACTOR = 1e100, 1e-50  # beyond, a sum times its factor might overflow
BLOCK = 1 << 18  # elements: 2 MB of float64, which stays in the cache


class StreamingMean:
    """Takes replies one by one and forgets them."""

    def __init__(self) -> None:
        self.total = 0.0
        self._updates = 0.0
        self._mean: Weights = {}  # times the factor
        self._factor: dict[str, float] = {}
        self._held: Weights = {}

    def add(self, x: Update, weight: float, *, is_update: bool) -> None:
        """Fold in one reply.

        Parameters
        ----------
        x : Update
            Any shapes and dtypes, the same for every reply. In an update, arrays that are not floating point
            hold values (see ``records.subtract``). A reply with partial arrays must be an update.
        weight : float
            >= 0; 0 changes nothing.
        is_update : bool
            True where the floating-point arrays of ``x`` are differences.
        """
        if weight == 0:
            return
        before = self.total
        self.total += weight
        share = weight / self.total
        for name, array in x.items():
            if name not in self._mean:
                self._mean[name] = np.zeros(array.shape, _wide(array))
            if name in self._held or (isinstance(array, Sparse) and array.partial):
                self._add_held(name, array, weight, before)
            elif not isinstance(array, Sparse) or float(np.abs(array.values).max(initial=0)) > LARGE:
                _mix(self._mean[name], (1 - share) * self._factor.pop(name, 1.0), dense(array), share)
            else:
                self._add_sparse(name, array, share)
        if is_update:
            self._updates += weight

    def to_tree(self) -> dict[str, Any]:
        """The mean so far, for a checkpoint; arrays are copied, for they change."""
        mean = {name: x.copy() for name, x in self._mean.items()}
        held = {name: x.copy() for name, x in self._held.items()}
        sums = {"total": self.total, "updates": self._updates}
        return {**sums, "mean": mean, "factor": dict(self._factor), "held": held}

    def restore(self, tree: Mapping[str, Any]) -> None:
        """Take over what :meth:`to_tree` gave."""
        self.total, self._updates = tree["total"], tree["updates"]
        self._mean = {name: np.array(x) for name, x in tree["mean"].items()}
        self._held = {name: np.array(x) for name, x in tree["held"].items()}
        self._factor = dict(tree["factor"])

    def result(self, current: Weights, step: float = 1.0) -> Weights:
        """The new weights, in the dtypes of ``current``; call it once, when ``total`` is above 0.

        ``step`` is how far to go from ``current`` towards the mean: 1 (default) is the mean itself.

        Integers and booleans are the float64 mean rounded half to even, clipped to what the dtype holds.
        """
        share = self._updates / self.total
        new: Weights = {}
        for name, old in current.items():
            mean = self._mean.pop(name)  # let go as we go: never two float64 models
            factor = self._factor.pop(name, 1.0)
            if is_inexact(old) and (share or step != 1):
                _mix(mean, step * factor, old, step * share + (1 - step))
            new[name] = narrow(mean, old.dtype)
        return new

    def _add_sparse(self, name: str, x: Sparse, share: float) -> None:
        mean = self._mean[name].reshape(-1)
        factor = self._factor.get(name, 1.0) * (1 - share)
        if factor < LEAST_FACTOR:  # as with the first reply, which is all there is
            mean *= factor
            factor = 1.0
        mean[x.positions] += np.multiply(x.values, share / factor, dtype=mean.dtype)
        self._factor[name] = factor

    def _add_held(self, name: str, x: NDArray | Sparse, weight: float, before: float) -> None:
        mean = self._mean[name].reshape(-1)
        if name not in self._held:
            mean *= self._factor.pop(name, 1.0)
            self._held[name] = np.full(mean.size, before)
        if isinstance(x, Sparse) and x.partial:
            where: NDArray | slice = x.positions
        else:
            where = slice(None)
        held = self._held[name]
        held[where] += weight
        new = np.asarray(values_of(x) if isinstance(where, np.ndarray) else dense(x)).reshape(-1)
        mean[where] += (new - mean[where]) * (weight / held[where])


def squared_norm(x: Update, base: Weights | None = None) -> float:
    """``||x||^2``, or ``||x - base||^2``, over the floating-point arrays, in blocks and float64."""
    total = 0.0
    for name, found in x.items():
        if not is_inexact(found):
            continue
        array = values_of(found) if base is None else dense(found)
        flat = np.ascontiguousarray(array).reshape(-1)
        start_of = None if base is None else np.ascontiguousarray(base[name]).reshape(-1)
        wide = _wide(array)
        for start in range(0, flat.size, BLOCK):
            block = flat[start : start + BLOCK].astype(wide)
            if start_of is not None:
                block -= start_of[start : start + BLOCK]
            total += float(np.vdot(block, block).real)
    return total


def _mix(mean: NDArray, keep: float, x: NDArray, share: float) -> None:
    """``mean = keep * mean + share * x`` in place, in blocks: no second float64 copy of a large array."""
    flat, new = mean.reshape(-1), np.ascontiguousarray(x).reshape(-1)
    for start in range(0, flat.size, BLOCK):
        block = flat[start : start + BLOCK]
        if keep != 1:
            block *= keep
        block += np.multiply(new[start : start + BLOCK], share, dtype=flat.dtype)


def _wide(x: NDArray | Sparse) -> type[np.float64] | type[np.complex128]:
    return np.complex128 if x.dtype.kind == "c" else np.float64


def narrow(mean: NDArray, dtype: np.dtype[Any]) -> NDArray:
    """Bring a float64 mean back into ``dtype``, as :meth:`StreamingMean.result` says."""
    if np.issubdtype(dtype, np.inexact):
        return mean.astype(dtype)
    rounded = np.rint(mean)
    if dtype == np.bool_:
        return rounded.astype(dtype)
    info = np.iinfo(dtype.name)
    high, low = rounded >= info.max, rounded <= info.min
    # float64 cannot hold the last int64s: those are set, not cast
    out = np.asarray(np.where(high | low, 0, rounded).astype(dtype))
    out[high], out[low] = info.max, info.min
    return out


def mean_metrics(records: Iterable[tuple[MetricRecord, float]], skip: str) -> MetricRecord | None:
    """Weighted mean of each metric over the nodes that report it, lists element by element.

    Parameters
    ----------
    records : iterable of (MetricRecord, float)
        One a node, with its weight. Values that are not finite, and lists whose length differs from the
        first one's, are left out.
    skip : str
        The weight's own key, which is no metric.
    """
    sums: dict[str, tuple[NDArray | float, float]] = {}
    seen = False
    for record, weight in records:
        seen = True
        for key, value in record.items():
            # of a number NumPy would make an array, many times a round
            one = np.asarray(value, np.float64) if isinstance(value, list) else float(value)
            # beyond LARGEST a sum may overflow, and no metric means anything
            if key == skip or weight == 0 or not _bounded(one):
                continue
            total, weights = sums.get(key, (0.0 * one, 0.0))
            if _length(total) == _length(one):
                sums[key] = (total + weight * one, weights + weight)
    if not seen:
        return None
    return MetricRecord({k: _plain(total / weights) for k, (total, weights) in sums.items()})


def metric(metrics: MetricRecord, key: str, most: float = math.inf) -> float:
    """A finite number in [0, most] that a client reported, or ReplyError."""
    value = metrics.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ReplyError(f"its metrics lack the weight {key!r}")
    if not 0 <= value < math.inf:
        raise ReplyError(f"its weight {key!r} is {value}, must be >= 0")
    if value > most:
        raise ReplyError(f"its weight {key!r} is {value}, must be at most {most:g}")
    return float(value)


def _bounded(x: NDArray | float) -> bool:
    return abs(x) <= LARGEST if isinstance(x, float) else bool((np.abs(x) <= LARGEST).all())


def _length(x: NDArray | float) -> int | None:
    return None if isinstance(x, float) else len(x)


def _plain(x: NDArray | float) -> float | list[float]:
    return x if isinstance(x, float) else [float(v) for v in x]
