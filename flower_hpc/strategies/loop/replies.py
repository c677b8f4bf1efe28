"""Is this reply fit to be averaged? Whatever a node sends, only arrays like the model's get past here."""

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from flwr.app import Message, MetricRecord

from ...compression import unpack
from ...errors import ReplyError
from ...protocol import QUEUE_S, TRAIN_S, UPDATE, WEIGHTS, mark_of
from ...records import NDArray, Sparse, Weights, values_of
from ..ledger import Usual
from ..weighting import UNKNOWN, Weighting


@dataclass(frozen=True)
class Reply:
    """A reply that passed: weights, or an update against ``base_version``."""

    arrays: dict[str, NDArray | Sparse]
    is_update: bool
    weight: float
    metrics: MetricRecord


def read_reply(
    message: Message,
    model: Weights,
    version: int,
    weighting: Weighting,
    usual: Usual = UNKNOWN,
    accept: Collection[str] | None = None,
) -> Reply:
    """Check and unpack a train reply.

    Parameters
    ----------
    message : Message
        The reply; has content.
    model : Weights
        What names, shapes and dtypes it must have.
    version : int
        The model version that the node was sent.
    weighting : Weighting
        What its weight is.
    usual : Usual
        Means over the nodes, around which weights are bounded; default unknown.
    accept : collection of str, optional
        Names of the codecs that may have written its arrays; default all.

    Raises
    ------
    ReplyError
        No or several ArrayRecords or MetricRecords; wrong names, shapes or dtypes; NaN or infinite values; a
        missing or negative weight; an unknown form, codec or base version.
    """
    content = message.content
    if len(content.array_records) != 1:
        raise ReplyError(f"it has {len(content.array_records)} ArrayRecords, expected 1")
    if len(content.metric_records) != 1:
        raise ReplyError(f"it has {len(content.metric_records)} MetricRecords, expected 1")
    (record,), (metrics,) = content.array_records.values(), content.metric_records.values()
    weight = weighting.weight(metrics, usual)
    mark = mark_of(message)
    if mark.form not in (UPDATE, WEIGHTS):
        raise ReplyError(f"its form is {mark.form!r}, expected {UPDATE!r} or {WEIGHTS!r}")
    if mark.form == UPDATE and mark.base_version != version:
        raise ReplyError(f"its update is against version {mark.base_version}, it was sent {version}")

    if set(record) != set(model):
        missing, extra = sorted(set(model) - set(record)), sorted(set(record) - set(model))
        raise ReplyError(f"its arrays differ in name: missing {missing[:3]}, unknown {extra[:3]}")
    arrays: dict[str, NDArray | Sparse] = {}
    for name, like in model.items():
        array = record[name]
        # declared shape and dtype first: nothing is decoded that would not fit
        if tuple(array.shape) != like.shape or array.dtype != str(like.dtype):
            got, want = f"{array.dtype} {tuple(array.shape)}", f"{like.dtype} {like.shape}"
            raise ReplyError(f"its array {name!r} is {got}, expected {want}")
        arrays[name] = unpack(array, accept)
        if not np.isfinite(values_of(arrays[name])).all():
            raise ReplyError(f"its array {name!r} has NaN or infinite values")
    return Reply(arrays, mark.form == UPDATE, weight, metrics)


def queue_s(metrics: MetricRecord, duration_s: float) -> float:
    """Seconds that a reply's work waited: what it says, else all that was no training, else 0."""
    queued, trained = metrics.get(QUEUE_S), metrics.get(TRAIN_S)
    if isinstance(queued, int | float) and 0 <= queued < math.inf:
        return float(queued)
    if isinstance(trained, int | float) and 0 <= trained < math.inf:
        return max(0.0, duration_s - trained)
    return 0.0
