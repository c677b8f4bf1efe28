"""What local SGD is asked to do and what it reports, the same for NumPy and for torch models."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from ..protocol import GRADIENT_VARIANCE, LOSS_RMS, NUM_STEPS, TRAIN_LOSS
from ..records import Weights

MOMENTUM = 0.9
EXAMPLES_SEEN = "examples-seen"


@dataclass(frozen=True, kw_only=True)
class Training:
    """One node's local training: SGD with momentum 0.9, which starts at zero each time.

    Parameters
    ----------
    lr : float
        Learning rate, > 0.
    epochs, batch_size : int
        Passes over the data, each in a new order; examples a step. The last batch of a pass may be smaller.
        Default 1 and 32.
    steps : int, optional
        Do exactly so many optimizer steps instead of ``epochs``, in as many passes as it takes.
    seed : int
        Of the order and of dropout. On the CPU equal seeds give equal weights; default 0.
    proximal_mu : float
        Strength of FedProx's term against the weights that the model comes with, >= 0; default 0.
    correction : Weights, optional
        Added to the gradient of the parameter of each name, as SCAFFOLD's ``c - c_i``; it has at least the
        names of the trainable parameters.
    variance : bool
        Measure the gradients' variance too; default False.

    Raises
    ------
    ConfigError
        A value out of its range.
    """

    lr: float
    epochs: int = 1
    batch_size: int = 32
    steps: int | None = None
    seed: int = 0
    proximal_mu: float = 0.0
    correction: Weights | None = None
    variance: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf:
            raise ConfigError(f"lr must be > 0 and finite, got {self.lr!r}")
        for name in ("epochs", "batch_size", "steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value!r}")
        if not 0 <= self.proximal_mu < math.inf:
            raise ConfigError(f"proximal_mu must be >= 0, got {self.proximal_mu!r}")

    def steps_of(self, examples: int) -> int:
        """Optimizer steps that it takes on so many examples.

        Raises
        ------
        ConfigError
            No examples.
        """
        if examples == 0:
            raise ConfigError("a node needs at least one training example, got 0")
        return self.steps or self.epochs * math.ceil(examples / self.batch_size)


class Tally:
    """Sums up batch after batch what a training reports; works on NumPy arrays and on torch tensors.

    Parameters
    ----------
    variance : bool
        Measure the variance of the gradients too.
    """

    def __init__(self, variance: bool = False) -> None:
        self._steps = self._seen = 0
        self._loss: Any = 0.0
        self._squared: Any = 0.0
        self._gradient: dict[str, Any] | None = {} if variance else None
        self._norms = 0.0

    def add(self, losses: Any, gradient: Mapping[str, Any]) -> None:
        """Take in a batch: the loss of each example, shape (batch,), and their mean's gradient by name."""
        self._steps, self._seen = self._steps + 1, self._seen + len(losses)
        self._loss = self._loss + losses.sum()
        self._squared = self._squared + (losses * losses).sum()
        if self._gradient is not None:
            self._norms += sum(float((g * g).sum()) for g in gradient.values())
            self._gradient = {k: g + self._gradient.get(k, 0.0) for k, g in gradient.items()}

    def metrics(self) -> dict[str, float]:
        """What :meth:`Task.train` returns."""
        metrics = {
            TRAIN_LOSS: float(self._loss) / self._seen,
            LOSS_RMS: math.sqrt(float(self._squared) / self._seen),
            EXAMPLES_SEEN: float(self._seen),
            NUM_STEPS: float(self._steps),
        }
        if self._gradient is not None:
            means = (g / self._steps for g in self._gradient.values())
            norm = sum(float((g * g).sum()) for g in means)
            # rounding: of equal gradients the difference can come out below 0
            metrics[GRADIENT_VARIANCE] = max(0.0, self._norms / self._steps - norm)
        return metrics
