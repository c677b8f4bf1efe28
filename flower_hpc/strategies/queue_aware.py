"""FedQueue's work and admission (FedQueue 2026, https://arxiv.org/abs/2605.02125).

Rounds that know of batch queues: for a round of ``T`` seconds and a node whose wait in its queue is expected
to be ``q`` (frozen when it is asked)

    J = max(0.5, T - q - theta)            seconds left for training
    E = max(floor(J / c), warm_up)         local steps, c: measured seconds a step
    lr = lr * clip(E_min / E, 1/4, 4)      E_min: fewest steps of those asked now or still under way
    admitted to this model  iff  the wait observed <= q + alpha T

What is not admitted joins the next model, one version staler. A node that is gone does not stay in ``E_min``,
and stale updates count from their own base: in the authors' code both are otherwise.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import ConfigError
from ..protocol import LOCAL_STEPS, LR_FACTOR
from .checks import number, positive, whole
from .situation import Situation
from .work import Assignment, Work

MEMORY = "queue"
LEAST_S = 0.5
LR_LEAST, LR_MOST = 0.25, 4.0


class QueueEstimate(ABC):
    """How long will the next wait be? Subclass it for your own."""

    @abstractmethod
    def seconds(self, waits_s: Sequence[float]) -> float:
        """From the last waits, oldest first, perhaps none."""


@dataclass(frozen=True)
class Ewma(QueueEstimate):
    """``q <- beta q_observed + (1 - beta) q``, FedQueue's own estimator.

    Parameters
    ----------
    beta : float
        In (0, 1]; default 0.5.
    first_s : float
        Where nothing was observed, >= 0; default 2.
    """

    beta: float = 0.5
    first_s: float = 2.0

    def __post_init__(self) -> None:
        positive("beta", self.beta, most=1.0)
        number("first_s", self.first_s, least=0)

    def seconds(self, waits_s: Sequence[float]) -> float:
        """The smoothed mean."""
        estimate = self.first_s
        for wait in waits_s:
            estimate = self.beta * wait + (1 - self.beta) * estimate
        return estimate


@dataclass(frozen=True)
class Quantile(QueueEstimate):
    """A quantile of the last waits: queues have heavy tails, which a mean does not see coming.

    Parameters
    ----------
    q : float
        In (0, 1]; default 0.8.
    window : int
        How many of the last waits count, >= 1; default 20.
    first_s : float
        Where nothing was observed, >= 0; default 2.
    """

    q: float = 0.8
    window: int = 20
    first_s: float = 2.0

    def __post_init__(self) -> None:
        positive("q", self.q, most=1.0)
        whole("window", self.window)
        number("first_s", self.first_s, least=0)

    def seconds(self, waits_s: Sequence[float]) -> float:
        """The quantile."""
        last = list(waits_s)[-self.window :]
        return float(np.quantile(last, self.q)) if last else self.first_s


@dataclass(frozen=True)
class QueueAware(Work):
    """Local steps that fill what the queue leaves of a round.

    Parameters
    ----------
    sync_s : float
        ``T``, seconds of a round, > 0; default 3600.
    safety_s : float
        ``theta``, >= 0; default 60.
    warm_up : int
        Fewest local steps, and those of a node whose speed is unknown; default 20.
    admission : float
        ``alpha``, >= 0; default 0.2.
    estimate : QueueEstimate
        Default ``Ewma()``; ``Quantile()`` for heavy tails.
    """

    sync_s: float = 3600.0
    safety_s: float = 60.0
    warm_up: int = 20
    admission: float = 0.2
    estimate: QueueEstimate = field(default_factory=Ewma)

    def __post_init__(self) -> None:
        positive("sync_s", self.sync_s)
        number("safety_s", self.safety_s, least=0)
        if self.safety_s >= self.sync_s:
            raise ConfigError(f"safety_s must be below sync_s, {self.sync_s:g}, got {self.safety_s!r}")
        whole("warm_up", self.warm_up)
        number("admission", self.admission, least=0)
        if not isinstance(self.estimate, QueueEstimate):
            raise ConfigError(f"estimate must be ewma(...) or quantile(...), got {self.estimate!r}")

    def assign(self, nodes: Sequence[str], seen: Situation) -> dict[str, Assignment]:
        """Steps and the learning rate's factor for each."""
        kept = seen.keep(MEMORY)
        for node in nodes:
            past = seen.ledger.of(node)
            queue_s = self.estimate.seconds(past.queues_s)
            kept[node] = {"queue_s": queue_s, "steps": self.steps(queue_s, past.step_s)}
        fewest = min((entry["steps"] for entry in kept.values()), default=1)
        return {
            node: {
                LOCAL_STEPS: kept[node]["steps"],
                LR_FACTOR: min(LR_MOST, max(LR_LEAST, fewest / kept[node]["steps"])),
            }
            for node in nodes
        }

    def admits(self, node: str, queue_s: float, seen: Situation) -> bool:
        """Whether its wait was near enough to what was expected when it was asked."""
        expected = seen.keep(MEMORY).get(node)
        return expected is None or queue_s <= float(expected["queue_s"]) + self.admission * self.sync_s

    def answered(self, node: str, seen: Situation) -> None:
        """It is no longer under way."""
        seen.keep(MEMORY).pop(node, None)

    def lost(self, node: str, seen: Situation) -> None:
        """It is no longer under way."""
        seen.keep(MEMORY).pop(node, None)

    def steps(self, queue_s: float, step_s: float | None) -> int:
        """``E``."""
        if not step_s:
            return self.warm_up
        return max(self.warm_up, math.floor(max(LEAST_S, self.sync_s - queue_s - self.safety_s) / step_s))
