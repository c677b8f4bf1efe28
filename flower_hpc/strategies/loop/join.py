"""How the updates of one aggregation become a model: as a streaming mean, or by a Flower strategy.

With ``p_i`` the weight of update ``d_i``, ``s_i`` its worth by staleness and ``q_i`` the correction for how
often its node is heard (all multiplied, normalised once):

    new = current + lr z sum_i (c_i / C) d_i        c_i = p_i q_i s_i / a_i,  C = sum_i c_i

``z`` is 1 but for two options. ``damped`` (FedBuff, FedAsync): ``z = sum(p q s) / sum(p q)``, so that a stale
batch moves the model less. ``normalise_steps`` (FedNova, Wang et al. 2020, https://arxiv.org/abs/2007.07481):
``a_i`` is the number of steps done, else 1, and ``z = sum(p q s a) sum(p q s / a) / sum(p q s)^2``
(equation 8). With ``lr <= 1`` and ``a_i = 1`` the new model is a convex combination of the current one and
the updated ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.exception import AggregationError, InconsistentMessageReplies
from flwr.serverapp.strategy import Strategy

from ...mean import StreamingMean, mean_metrics, narrow, squared_norm
from ...protocol import JOB_RETRIES, QUEUE_S
from ...records import Weights, add, densify, records_of, subtract, to_record, to_weights
from ..inner import sampled_clients
from .replies import Reply

Joined = tuple[ArrayRecord | None, MetricRecord | None]


@dataclass(frozen=True)
class Part:
    """What an update counts: ``p q``, ``s`` and ``a`` of the module's equation."""

    weight: float
    worth: float = 1.0
    steps: float = 1.0


class Batch(Protocol):
    """The updates that go into one new model version."""

    norms: list[float]
    """Squared norms of the updates, where they are known."""
    moved: float
    """Squared norm of their mean, once joined."""

    def add(
        self, message: Message, reply: Reply, part: Part, current: Weights, base: Weights | None
    ) -> float | None:
        """Take an update; ``base`` is the model that it started from where that is not ``current``.

        Returns its squared norm, where known.
        """
        ...

    def short(self) -> str | None:
        """Why these updates cannot be joined, or None."""
        ...

    def join(self, server_round: int, current: Weights) -> Joined:
        """The new model and the mean training metrics; None for a model that cannot be had."""
        ...


class Averaged:
    """Weighted mean; each update is added and forgotten.

    Parameters
    ----------
    key : str
        The metric that holds the number of examples.
    lr : float
        How far to go towards the mean; default 1.
    damped : bool
        Stale batches move the model less; default False.
    models : bool
        A stale reply counts as the model that it is (FedAsync's equation), not as an update; default False.
    """

    def __init__(self, key: str, lr: float = 1.0, damped: bool = False, models: bool = False) -> None:
        self._key, self._lr, self._damped, self._models = key, lr, damped, models
        self._mean = StreamingMean()
        self._metrics: list[tuple[MetricRecord, float]] = []
        self._plain = self._worth = self._steps = 0.0  # sums of p q, p q s, p q s a
        self.norms: list[float] = []
        self.moved = 0.0

    def add(
        self, message: Message, reply: Reply, part: Part, current: Weights, base: Weights | None
    ) -> float | None:
        """Fold in."""
        arrays, is_update = reply.arrays, reply.is_update
        started = current if base is None else base
        norm = squared_norm(arrays, None if is_update else started)
        if self._models and is_update:
            arrays, is_update = dict(add(started, densify(arrays))), False
        elif base is not None and not is_update and not self._models:
            arrays, is_update = dict(subtract(densify(arrays), base)), True
        worth = part.weight * part.worth
        self._mean.add(arrays, worth / part.steps, is_update=is_update)
        self._plain, self._worth = self._plain + part.weight, self._worth + worth
        self._steps += worth * part.steps
        self._metrics.append((reply.metrics, part.weight))
        self.norms.append(norm)
        return norm

    def short(self) -> str | None:
        """Updates that all weigh 0 have no mean."""
        return None if self._mean.total > 0 else "the replies' weights sum to 0"

    def join(self, server_round: int, current: Weights) -> Joined:
        """The mean."""
        # as ratios: products of what nodes report may overflow
        step = self._lr * (self._mean.total / self._worth) * (self._steps / self._worth)
        if self._damped:
            step *= self._worth / self._plain
        new = self._mean.result(current, step)
        self.moved = squared_norm(new, current) / step**2
        return to_record(new), mean_metrics(self._metrics, self._key)

    def to_tree(self) -> dict[str, Any]:
        """What has come so far, for a checkpoint; arrays are copied, for they change."""
        sums = (self._plain, self._worth, self._steps)
        metrics = [(dict(record), weight) for record, weight in self._metrics]
        return {"mean": self._mean.to_tree(), "sums": sums, "norms": list(self.norms), "metrics": metrics}

    def restore(self, tree: Mapping[str, Any]) -> None:
        """Take over what :meth:`to_tree` gave."""
        self._mean.restore(tree["mean"])
        self._plain, self._worth, self._steps = tree["sums"]
        self.norms = tree["norms"]
        self._metrics = [(MetricRecord(record), weight) for record, weight in tree["metrics"]]


class Gathered:
    """Full weights of every reply, for an inner strategy: memory is nodes x model."""

    def __init__(self, inner: Strategy) -> None:
        self._inner = inner
        self._needed = sampled_clients(inner)
        self._replies: list[tuple[Message, bool]] = []
        self._weight = 0.0
        self.norms: list[float] = []
        self.moved = 0.0

    def add(
        self, message: Message, reply: Reply, part: Part, current: Weights, base: Weights | None
    ) -> float | None:
        """Keep it; an update counts from the model that is current when they are joined."""
        is_update, arrays = reply.is_update, reply.arrays
        if not is_update and base is not None:
            is_update, arrays = True, dict(subtract(densify(arrays), base))
        (key,) = records_of(message.content, ArrayRecord)
        ((metrics_key, metrics),) = records_of(message.content, MetricRecord).items()
        # Flower's strategies refuse replies whose metrics differ in name, and not every site has a queue
        alike = MetricRecord({k: v for k, v in metrics.items() if k not in (QUEUE_S, JOB_RETRIES)})
        message.content = RecordDict({key: to_record(densify(arrays)), metrics_key: alike})
        self._replies.append((message, is_update))
        self._weight += reply.weight
        return None

    def short(self) -> str | None:
        """A DP wrapper's noise is scaled for one number of replies; a mean needs weights."""
        if not self._weight > 0:
            return "the replies' weights sum to 0"
        if self._needed is None or len(self._replies) == self._needed:
            return None
        name = type(self._inner).__name__
        return f"{len(self._replies)} replies, but {name} needs exactly {self._needed} for its noise"

    def join(self, server_round: int, current: Weights) -> Joined:
        """What the inner strategy makes of them, in the model's dtypes."""
        for message, is_update in self._replies:
            if is_update:
                ((key, update),) = records_of(message.content, ArrayRecord).items()
                message.content[key] = to_record(add(current, to_weights(update)))
        try:
            record, metrics = self._inner.aggregate_train(server_round, [m for m, _ in self._replies])
        except (AggregationError, InconsistentMessageReplies):
            return None, None  # Flower has logged the reason
        if record is None:
            return None, metrics
        # stock strategies turn counters into floats, which the next replies would not match
        new = to_weights(record)
        return to_record({k: narrow(new[k], x.dtype) for k, x in current.items()}), metrics
