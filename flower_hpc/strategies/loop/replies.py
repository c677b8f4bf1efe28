"""Is this reply fit to be averaged? Whatever a node sends, only arrays like the model's get past here."""

import math
from collections.abc import Collection
from dataclasses import dataclass

from flwr.app import ArrayRecord, Message, MetricRecord

from ...compression import unpack
from ...errors import ReplyError
from ...protocol import QUEUE_S, TRAIN_S, UPDATE, WEIGHTS, mark_of
from ...records import NDArray, Sparse, Weights, read_like, records_of
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
    found = records_of(message.content, ArrayRecord)
    measured = records_of(message.content, MetricRecord)
    if len(found) != 1:
        raise ReplyError(f"it has {len(found)} ArrayRecords, expected 1")
    if len(measured) != 1:
        raise ReplyError(f"it has {len(measured)} MetricRecords, expected 1")
    (record,), (metrics,) = found.values(), measured.values()
    weight = weighting.weight(metrics, usual)
    mark = mark_of(message)
    if mark.form not in (UPDATE, WEIGHTS):
        raise ReplyError(f"its form is {mark.form!r}, expected {UPDATE!r} or {WEIGHTS!r}")
    if mark.form == UPDATE and mark.base_version != version:
        raise ReplyError(f"its update is against version {mark.base_version}, it was sent {version}")
    arrays = read_like(record, model, lambda array: unpack(array, accept))
    return Reply(arrays, mark.form == UPDATE, weight, metrics)


def queue_s(metrics: MetricRecord, duration_s: float) -> float:
    """Seconds that a reply's work waited: what it says, else all that was no training, else 0."""
    queued, trained = metrics.get(QUEUE_S), metrics.get(TRAIN_S)
    if isinstance(queued, int | float) and 0 <= queued < math.inf:
        return float(queued)
    if isinstance(trained, int | float) and 0 <= trained < math.inf:
        return max(0.0, duration_s - trained)
    return 0.0
