"""Tasks whose model is a torch module: what they minimise, and how their weights come and go."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ConfigError
from ..records import Weights
from .base import Examples, Task
from .sgd import Training
from .training import evaluate, train


@dataclass(frozen=True)
class Objective:
    """What is minimised, and what is reported.

    Parameters
    ----------
    loss : callable
        (outputs, targets) to the loss of each example, shape (batch,).
    accuracy : callable
        (outputs, targets) to a scalar in [0, 1], the mean over the batch.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    accuracy: Callable[[Tensor, Tensor], Tensor]


def _cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, reduction="none")


def _mean_over_findings(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean(1)


def _top1(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.argmax(1) == targets).float().mean()


def _elementwise(outputs: Tensor, targets: Tensor) -> Tensor:
    return ((outputs > 0) == (targets > 0.5)).float().mean()


ONE_OF_MANY = Objective(_cross_entropy, _top1)
"""Classes exclude each other; targets int64, shape (batch,)."""

MANY_OF_MANY = Objective(_mean_over_findings, _elementwise)
"""Findings that occur together; targets float, shape (batch, findings); each decision counts as one
for the accuracy, cut at probability 0.5, as MedMNIST's evaluator does."""


class TorchTask(Task[nn.Module]):
    """A subclass builds a module, reads data, and may have another objective."""

    objective: Objective = ONE_OF_MANY

    @abstractmethod
    def _build(self) -> nn.Module:
        """A fresh model; torch's generator is seeded."""

    def _build_narrow(self, width: float) -> nn.Module:
        """One of less width than 1; override it where there is one."""
        raise ConfigError(f"the model of {type(self).__name__} has width 1 only, got {width!r}")

    def build_model(self, width: float = 1.0) -> nn.Module:
        """The initial model; torch's global generator is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.options.seed)
            return self._build() if width == 1 else self._build_narrow(width)

    def weights(self, model: nn.Module) -> Weights:
        """Its state dict."""
        return {k: x.detach().cpu().numpy() for k, x in model.state_dict().items()}

    def set_weights(self, model: nn.Module, weights: Weights) -> None:
        """Load a state dict; a name too many or too few is torch's error."""
        # copies: what came from a wire is read-only, which torch warns of
        model.load_state_dict({k: torch.from_numpy(x.copy()) for k, x in weights.items()}, strict=True)

    def train(
        self,
        model: nn.Module,
        examples: Examples,
        training: Training,
        spent: Callable[[], bool] | None = None,
    ) -> dict[str, float]:
        """By :func:`training.train`, on CUDA or MPS where present."""
        return train(model, examples, self.objective.loss, training, spent)

    def evaluate(self, model: nn.Module, examples: Examples) -> dict[str, float]:
        """By :func:`training.evaluate`."""
        return evaluate(model, examples, self.objective.loss, self.objective.accuracy)
