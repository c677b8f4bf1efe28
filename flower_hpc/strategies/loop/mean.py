"""The weighted mean of a round, one reply at a time: memory is one model, however many nodes reply.

``x`` of reply i is its weights ``w_i``, or its update ``d_i`` against the version that it started from. With
weights ``c_i`` that are normalised once, by their sum ``C`` (algorithm 1 of McMahan et al. 2017):

    new = sum_i (c_i / C) x_i  +  (sum of c_i over updates / C) * current

so that replies of both forms mix, and fresh weights give exactly FedAvg's mean. The sum is kept as a running
mean in float64 (complex128), which cannot overflow where the inputs do not.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flwr.app import MetricRecord

from ...records import NDArray, Weights, is_inexact

LARGEST = 1e200
BLOCK = 1 << 18  # elements: 2 MB of float64, which stays in the cache


class StreamingMean:
    """Takes replies one by one and forgets them."""

    def __init__(self) -> None:
        self.total = 0.0
        self._updates = 0.0
        self._mean: Weights = {}

    def add(self, x: Weights, weight: float, *, is_update: bool) -> None:
        """Fold in one reply.

        Parameters
        ----------
        x : Weights
            Any shapes and dtypes, the same for every reply. In an update, arrays that are not floating point
            hold values (see ``records.subtract``).
        weight : float
            >= 0; 0 changes nothing.
        is_update : bool
            True where the floating-point arrays of ``x`` are differences.
        """
        if weight == 0:
            return
        self.total += weight
        share = weight / self.total
        for name, array in x.items():
            if name not in self._mean:
                self._mean[name] = np.zeros(array.shape, _wide(array))
            _mix(self._mean[name], 1 - share, array, share)
        if is_update:
            self._updates += weight

    def to_tree(self) -> dict[str, Any]:
        """The mean so far, for a checkpoint; arrays are copied, for they change."""
        mean = {name: x.copy() for name, x in self._mean.items()}
        return {"total": self.total, "updates": self._updates, "mean": mean}

    def restore(self, tree: Mapping[str, Any]) -> None:
        """Take over what :meth:`to_tree` gave."""
        self.total, self._updates = tree["total"], tree["updates"]
        self._mean = {name: np.array(x) for name, x in tree["mean"].items()}

    def result(self, current: Weights, step: float = 1.0) -> Weights:
        """The new weights, in the dtypes of ``current``; call it once, when ``total`` is above 0.

        ``step`` is how far to go from ``current`` towards the mean: 1 (default) is the mean itself.

        Integers and booleans are the float64 mean rounded half to even, clipped to what the dtype holds.
        """
        share = self._updates / self.total
        new: Weights = {}
        for name, old in current.items():
            mean = self._mean.pop(name)  # let go as we go: never two float64 models
            if is_inexact(old) and (share or step != 1):
                _mix(mean, step, old, step * share + (1 - step))
            new[name] = narrow(mean, old.dtype)
        return new


def squared_norm(x: Weights, base: Weights | None = None) -> float:
    """``||x||^2``, or ``||x - base||^2``, over the floating-point arrays, in blocks and float64."""
    total = 0.0
    for name, array in x.items():
        if not is_inexact(array):
            continue
        flat = np.ascontiguousarray(array).reshape(-1)
        start_of = None if base is None else np.ascontiguousarray(base[name]).reshape(-1)
        for start in range(0, flat.size, BLOCK):
            block = flat[start : start + BLOCK].astype(_wide(array))
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


def _wide(x: NDArray) -> type[np.float64] | type[np.complex128]:
    return np.complex128 if np.iscomplexobj(x) else np.float64


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
    sums: dict[str, tuple[NDArray, float]] = {}
    seen = False
    for record, weight in records:
        seen = True
        for key, value in record.items():
            array = np.asarray(value, np.float64)
            # beyond LARGEST a sum may overflow, and no metric means anything
            if key == skip or weight == 0 or not (np.abs(array) <= LARGEST).all():
                continue
            total, weights = sums.get(key, (np.zeros_like(array), 0.0))
            if total.shape == array.shape:
                sums[key] = (total + weight * array, weights + weight)
    if not seen:
        return None
    return MetricRecord({k: _plain(total / weights) for k, (total, weights) in sums.items()})


def _plain(x: NDArray) -> float | list[float]:
    return float(x) if x.ndim == 0 else [float(v) for v in x]
