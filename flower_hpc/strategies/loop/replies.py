"""Is this reply fit to be averaged? Whatever a node sends, only arrays like the model's get past here."""

from dataclasses import dataclass

import numpy as np
from flwr.app import Message, MetricRecord

from ...compression import unpack
from ...errors import ReplyError
from ...protocol import UPDATE, WEIGHTS, mark_of
from ...records import Weights
from ..ledger import Usual
from ..weighting import UNKNOWN, Weighting


@dataclass(frozen=True)
class Reply:
    """A reply that passed: weights, or an update against ``base_version``."""

    arrays: Weights
    is_update: bool
    weight: float
    metrics: MetricRecord


def read_reply(
    message: Message, model: Weights, version: int, weighting: Weighting, usual: Usual = UNKNOWN
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
    arrays: Weights = {}
    for name, like in model.items():
        array = record[name]
        # declared shape and dtype first: nothing is decoded that would not fit
        if tuple(array.shape) != like.shape or array.dtype != str(like.dtype):
            got, want = f"{array.dtype} {tuple(array.shape)}", f"{like.dtype} {like.shape}"
            raise ReplyError(f"its array {name!r} is {got}, expected {want}")
        arrays[name] = unpack(array)
        if not np.isfinite(arrays[name]).all():
            raise ReplyError(f"its array {name!r} has NaN or infinite values")
    return Reply(arrays, mark.form == UPDATE, weight, metrics)
