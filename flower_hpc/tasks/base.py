"""What a task is: a model, examples that can be shared out, a central test set, an objective."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ConfigError
from ..records import NDArray
from .options import TaskOptions
from .partition import partition


class Examples(Protocol):
    """A torch map-style dataset that is read a batch at a time.

    ``examples[[3, 1, 4]]`` is the pair (inputs, targets) of those examples, stacked; collating single
    examples would take longer than training a small model on them.
    """

    @property
    def labels(self) -> NDArray:
        """What partitioners go by: int64, shape (examples,)."""

    @property
    def roles(self) -> NDArray | None:
        """Who each example comes from: int64, shape (examples,); -1 has too few; None: nobody."""

    def __len__(self) -> int:
        """Number of examples."""

    def __getitem__(self, index: list[int]) -> tuple[Tensor, Tensor]:
        """A batch."""

    def select(self, index: NDArray) -> Self:
        """Only these examples, in this order."""


@dataclass(frozen=True)
class Objective:
    """What is minimised, and what is reported.

    Parameters
    ----------
    loss : callable
        (outputs, targets) to a scalar, the mean over the batch.
    accuracy : callable
        (outputs, targets) to a scalar in [0, 1], the mean over the batch.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    accuracy: Callable[[Tensor, Tensor], Tensor]


def _top1(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.argmax(1) == targets).float().mean()


def _elementwise(outputs: Tensor, targets: Tensor) -> Tensor:
    return ((outputs > 0) == (targets > 0.5)).float().mean()


ONE_OF_MANY = Objective(F.cross_entropy, _top1)
"""Classes exclude each other; targets int64, shape (batch,)."""

MANY_OF_MANY = Objective(F.binary_cross_entropy_with_logits, _elementwise)
"""Findings that occur together; targets float, shape (batch, findings); each decision counts as one
for the accuracy, cut at probability 0.5, as MedMNIST's evaluator does."""


class Task(ABC):
    """One model and real data. A subclass says how to build and how to read.

    Parameters
    ----------
    options : TaskOptions
        Which model, which data, whose seed.
    """

    objective: Objective = ONE_OF_MANY

    def __init__(self, options: TaskOptions) -> None:
        self.options = options
        self._read: dict[bool, Examples] = {}
        self._parts: tuple[int, list[NDArray]] = (0, [])

    @abstractmethod
    def _build(self) -> nn.Module:
        """A fresh model; torch's generator is seeded."""

    @abstractmethod
    def _load(self, train: bool) -> Examples:
        """All training or all test examples."""

    def build_model(self) -> nn.Module:
        """The initial model, on the CPU; equal seeds give equal weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.options.seed)
            return self._build()

    def load_partition(self, index: int, num_partitions: int) -> Examples:
        """The training examples of node ``index`` of ``num_partitions``.

        Raises
        ------
        ConfigError
            No such partition, no data, or data that cannot be shared out so.
        """
        if not 0 <= index < num_partitions:
            raise ConfigError(f"partition-id must be in [0, {num_partitions}), got {index}")
        train = self._examples(train=True)
        if self._parts[0] != num_partitions:
            parts = partition(train.labels, self.options, num_partitions, train.roles)
            self._parts = (num_partitions, parts)
        return train.select(self._parts[1][index])

    def load_test(self) -> Examples:
        """The central test set: all, or ``test_examples`` drawn by the seed.

        Raises
        ------
        ConfigError
            No data.
        """
        test = self._examples(train=False)
        wanted = self.options.test_examples
        if wanted in (0, len(test)) or wanted > len(test):
            return test
        rng = np.random.default_rng(self.options.seed)
        return test.select(np.sort(rng.choice(len(test), wanted, replace=False)))

    def _examples(self, train: bool) -> Examples:
        if train not in self._read:
            self._read[train] = self._load(train)
        return self._read[train]
