"""What is an update worth in the average?"""

import math
from dataclasses import dataclass
from typing import Protocol

from flwr.app import MetricRecord

from ..errors import ReplyError
from ..protocol import NUM_EXAMPLES


class Weighting(Protocol):
    """A weight for each update."""

    @property
    def key(self) -> str:
        """The metric that holds the weight."""
        ...

    def weight(self, metrics: MetricRecord) -> float:
        """Weight of the update that came with ``metrics``; raises ReplyError where there is none."""
        ...


@dataclass(frozen=True)
class ByExamples:
    """Weigh by the number of training examples, FedAvg's ``n_k / n``.

    Parameters
    ----------
    key : str
        The metric that holds the number; default ``"num-examples"``, Flower's. A reply without it, or with
        a negative or non-finite value, is refused; a 0 is accepted and adds nothing.
    """

    key: str = NUM_EXAMPLES

    def weight(self, metrics: MetricRecord) -> float:
        """The number of examples."""
        value = metrics.get(self.key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ReplyError(f"its metrics lack the weight {self.key!r}")
        if not 0 <= value < math.inf:
            raise ReplyError(f"its weight {self.key!r} is {value}, must be >= 0")
        return float(value)
