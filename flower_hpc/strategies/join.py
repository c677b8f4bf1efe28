"""How the updates of one aggregation become a model: as a streaming mean, or by a Flower strategy."""

from typing import Protocol

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.exception import AggregationError, InconsistentMessageReplies
from flwr.serverapp.strategy import Strategy

from ..records import Weights, add, subtract, to_record, to_weights
from .inner import sampled_clients
from .mean import StreamingMean, mean_metrics, narrow
from .replies import Reply

Joined = tuple[ArrayRecord | None, MetricRecord | None]


class Batch(Protocol):
    """The updates that go into one new model version."""

    def add(
        self, message: Message, reply: Reply, weight: float, current: Weights, base: Weights | None
    ) -> None:
        """Take an update; ``base`` is the model that it started from where that is not ``current``."""
        ...

    def short(self) -> str | None:
        """Why these updates cannot be joined, or None."""
        ...

    def join(self, server_round: int, current: Weights) -> Joined:
        """The new model and the mean training metrics; None for a model that cannot be had."""
        ...


class Averaged:
    """Weighted mean; each update is added and forgotten."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._mean = StreamingMean()
        self._metrics: list[tuple[MetricRecord, float]] = []

    def add(
        self, message: Message, reply: Reply, weight: float, current: Weights, base: Weights | None
    ) -> None:
        """Fold in."""
        arrays, is_update = reply.arrays, reply.is_update
        if base is not None and not is_update:
            arrays, is_update = subtract(arrays, base), True
        self._mean.add(arrays, weight, is_update=is_update)
        self._metrics.append((reply.metrics, reply.weight))

    def short(self) -> str | None:
        """Updates that all weigh 0 have no mean."""
        return None if self._mean.total > 0 else "the replies' weights sum to 0"

    def join(self, server_round: int, current: Weights) -> Joined:
        """The mean."""
        return to_record(self._mean.result(current)), mean_metrics(self._metrics, self._key)


class Gathered:
    """Full weights of every reply, for an inner strategy: memory is nodes x model."""

    def __init__(self, inner: Strategy) -> None:
        self._inner = inner
        self._needed = sampled_clients(inner)
        self._replies: list[Message] = []

    def add(
        self, message: Message, reply: Reply, weight: float, current: Weights, base: Weights | None
    ) -> None:
        """Keep it, as weights: an update counts from the current model."""
        weights = reply.arrays
        if reply.is_update:
            weights = add(current, weights)
        elif base is not None:
            weights = add(current, subtract(weights, base))
        ((key, _),) = message.content.array_records.items()
        ((metrics_key, metrics),) = message.content.metric_records.items()
        message.content = RecordDict({key: to_record(weights), metrics_key: metrics})
        self._replies.append(message)

    def short(self) -> str | None:
        """A DP wrapper's noise is scaled for one number of replies."""
        if self._needed is None or len(self._replies) == self._needed:
            return None
        name = type(self._inner).__name__
        return f"{len(self._replies)} replies, but {name} needs exactly {self._needed} for its noise"

    def join(self, server_round: int, current: Weights) -> Joined:
        """What the inner strategy makes of them, in the model's dtypes."""
        try:
            record, metrics = self._inner.aggregate_train(server_round, self._replies)
        except (AggregationError, InconsistentMessageReplies):
            return None, None  # Flower has logged the reason
        if record is None:
            return None, metrics
        # stock strategies turn counters into floats, which the next replies would not match
        new = to_weights(record)
        return to_record({k: narrow(new[k], x.dtype) for k, x in current.items()}), metrics
