"""What is an update worth in the average? By data size, loss or gradient variance (Ghimire et al. 2025).

A client reports its loss and its gradient variance itself, so those count within bounds: the largest weight
of a round is at most ``max_ratio`` times the smallest that is not 0. Bounds lie around the nodes' mean number
of examples, and factors are relative to the nodes' mean loss or variance, so that each reply can be added as
it comes; in the very first round those of its first reply stand in.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from flwr.app import MetricRecord

from ..errors import ConfigError
from ..mean import MOST_EXAMPLES, metric
from ..protocol import GRADIENT_VARIANCE, NUM_EXAMPLES, TRAIN_LOSS, WANT_VARIANCE
from .checks import number, positive
from .ledger import Usual
from .work import NOTHING, Assignment

LARGEST_EXPONENT = 50.0


UNKNOWN = Usual()


class Weighting(ABC):
    """A weight for each update; subclass it for your own."""

    key: str = NUM_EXAMPLES
    """The metric that holds the number of examples."""
    max_ratio: float | None = None
    """Largest over smallest weight of a round; None: no bound."""

    @property
    def asks(self) -> Assignment:
        """What to write into the train messages' config, so that clients report what it needs."""
        return NOTHING

    def weight(self, metrics: MetricRecord, usual: Usual = UNKNOWN) -> float:
        """Weight of the update that came with ``metrics``; ReplyError where it cannot be had."""
        raw = self.raw(metrics, usual)
        if self.max_ratio is None or not usual.examples or raw == 0:
            return raw
        reach = math.sqrt(self.max_ratio)
        return min(usual.examples * reach, max(usual.examples / reach, raw))

    @property
    def watches(self) -> tuple[str, ...]:
        """Metrics whose means over the nodes it goes by."""
        return ()

    @abstractmethod
    def raw(self, metrics: MetricRecord, usual: Usual) -> float:
        """The weight before it is bounded."""

    def examples(self, metrics: MetricRecord) -> float:
        """The number of examples, which weighs evaluations too."""
        return metric(metrics, self.key, MOST_EXAMPLES)


@dataclass(frozen=True)
class ByExamples(Weighting):
    """Weigh by the number of training examples, FedAvg's ``n_k / n`` (McMahan et al. 2017).

    Parameters
    ----------
    key : str
        The metric that holds the number; default ``"num-examples"``, Flower's. A reply without it, or with
        a negative or non-finite value, is refused; a 0 is accepted and adds nothing.
    max_ratio : float, optional
        Bound on the largest weight of a round over the smallest, >= 1; default none.
    """

    key: str = NUM_EXAMPLES
    max_ratio: float | None = None

    def __post_init__(self) -> None:
        _check(self)

    def raw(self, metrics: MetricRecord, usual: Usual) -> float:
        """The number of examples."""
        return self.examples(metrics)


@dataclass(frozen=True)
class ByLoss(Weighting):
    """``n_i exp(beta (L_i - L))``, ``L`` the nodes' mean loss.

    Above 0 nodes on which the model does badly count more (Mohri et al. 2019, https://arxiv.org/abs/1902.00146,
    agnostic federated learning; here by exponential weights); below 0 those that fit (FLUTE's DGA,
    https://arxiv.org/abs/2203.13789, has the softmax of the negative loss).

    Parameters
    ----------
    beta : float
        Default 1, fair; -1 is greedy; 0 is :class:`ByExamples`.
    max_ratio : float
        Bound on the largest weight of a round over the smallest, >= 1; default 10.
    loss : str
        The metric; default ``"train-loss"``. A reply without it is refused.
    key : str
        The metric that holds the number of examples; default ``"num-examples"``.
    """

    beta: float = 1.0
    max_ratio: float | None = 10.0
    loss: str = TRAIN_LOSS
    key: str = NUM_EXAMPLES

    def __post_init__(self) -> None:
        number("beta", self.beta)
        _check(self)

    @property
    def watches(self) -> tuple[str, ...]:
        """The loss."""
        return (self.loss,)

    def raw(self, metrics: MetricRecord, usual: Usual) -> float:
        """Examples times the loss's factor."""
        loss = metric(metrics, self.loss)
        off = loss - usual.metrics.get(self.loss, loss)
        exponent = min(LARGEST_EXPONENT, max(-LARGEST_EXPONENT, self.beta * off))
        return self.examples(metrics) * math.exp(exponent)


@dataclass(frozen=True)
class ByGradientVariance(Weighting):
    """``n_i (v + epsilon) / (v_i + epsilon)``, ``v`` the nodes' mean: noisy updates count less.

    Inverse-variance weights. Clients are asked to report ``gradient-variance``, that of their batch gradients
    around their mean.

    Parameters
    ----------
    epsilon : float
        Keeps a variance of 0 from weighing everything, > 0; default 1e-8.
    max_ratio : float
        Bound on the largest weight of a round over the smallest, >= 1; default 10.
    key : str
        The metric that holds the number of examples; default ``"num-examples"``.
    """

    epsilon: float = 1e-8
    max_ratio: float | None = 10.0
    key: str = NUM_EXAMPLES

    def __post_init__(self) -> None:
        positive("epsilon", self.epsilon)
        _check(self)

    @property
    def asks(self) -> Assignment:
        """The variance."""
        return {WANT_VARIANCE: True}

    @property
    def watches(self) -> tuple[str, ...]:
        """The variance."""
        return (GRADIENT_VARIANCE,)

    def raw(self, metrics: MetricRecord, usual: Usual) -> float:
        """Examples over variance."""
        variance = metric(metrics, GRADIENT_VARIANCE)
        mean = usual.metrics.get(GRADIENT_VARIANCE, variance)
        return self.examples(metrics) * (mean + self.epsilon) / (variance + self.epsilon)


def _check(weighting: Weighting) -> None:
    if weighting.max_ratio is not None:
        number("max_ratio", weighting.max_ratio, least=1)
    if not isinstance(weighting.key, str) or not weighting.key:
        raise ConfigError(f"key must be the name of a metric, got {weighting.key!r}")
