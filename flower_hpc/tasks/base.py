"""What a task is: a model, examples that can be shared out, a central test set, training, evaluation.

Models stay inside: what crosses this interface is weights, ``{name: ndarray}``.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np

from ..errors import ConfigError
from ..records import NDArray, Weights
from .options import TaskOptions
from .partition import partition
from .sgd import Training

Model = TypeVar("Model")


class Examples(Protocol):
    """A map-style data set that is read a batch at a time.

    ``examples[[3, 1, 4]]`` is the pair (inputs, targets) of those examples, as arrays; collating single
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

    def __getitem__(self, index: list[int]) -> tuple[Any, Any]:
        """A batch."""

    def select(self, index: NDArray) -> Self:
        """Only these examples, in this order."""


def units(size: int, width: float) -> int:
    """Units of a hidden layer of ``size`` at a width: ``ceil(size * width)``, as a server counts them.

    Raises
    ------
    ConfigError
        A width outside (0, 1].
    """
    if not 0 < width <= 1:
        raise ConfigError(f"width must be in (0, 1], got {width!r}")
    return math.ceil(size * width)


class Task(ABC, Generic[Model]):
    """One model and real data. A subclass says how to build and how to read.

    Parameters
    ----------
    options : TaskOptions
        Which model, which data, whose seed.
    """

    def __init__(self, options: TaskOptions) -> None:
        self.options = options
        self._read: dict[bool, Examples] = {}
        self._parts: tuple[int, list[NDArray]] = (0, [])

    @abstractmethod
    def _load(self, train: bool) -> Examples:
        """All training or all test examples."""

    @abstractmethod
    def build_model(self, width: float = 1.0) -> Model:
        """The initial model, on the CPU; equal seeds give equal weights.

        Parameters
        ----------
        width : float
            Share of the units of each hidden layer, in (0, 1], as of :func:`units`. What a smaller model
            starts from is its own, no part of the full one's.

        Raises
        ------
        ConfigError
            Another width, or a task whose model has one width only.
        """

    @abstractmethod
    def weights(self, model: Model) -> Weights:
        """What a model has learnt, buffers included."""

    @abstractmethod
    def set_weights(self, model: Model, weights: Weights) -> None:
        """Put weights into a model; every name, and no other."""

    @abstractmethod
    def train(
        self,
        model: Model,
        examples: Examples,
        training: Training,
        spent: Callable[[], bool] | None = None,
    ) -> dict[str, float]:
        """Train in place.

        Parameters
        ----------
        model, examples
            Whose order is drawn anew each epoch.
        training : Training
            How.
        spent : callable, optional
            Asked after each batch; True ends the training there. One batch is always done.

        Returns
        -------
        dict
            ``train-loss`` (mean over the examples seen), ``train-loss-rms`` (root of the mean of its square),
            both from the loss of each example when its batch is used and without FedProx's term;
            ``num-steps`` and ``examples-seen``, as done; where asked for ``gradient-variance``, the mean of
            ``||g||^2`` over the batches less the squared norm of the mean ``g``, without term and correction.

        Raises
        ------
        ConfigError
            No examples.
        """

    @abstractmethod
    def evaluate(self, model: Model, examples: Examples) -> dict[str, float]:
        """``loss`` and ``accuracy`` (in [0, 1]), each the mean over all examples, and ``num-examples``.

        Raises
        ------
        ConfigError
            No examples.
        """

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
