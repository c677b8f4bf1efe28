"""What can be chosen about a task, checked before anything heavy is imported."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from ..errors import ConfigError

MEDMNIST_2D = (
    "bloodmnist",
    "breastmnist",
    "chestmnist",
    "dermamnist",
    "octmnist",
    "organamnist",
    "organcmnist",
    "organsmnist",
    "pathmnist",
    "pneumoniamnist",
    "retinamnist",
    "tissuemnist",
)
"""Flags of the 2D sets; the package names them too, but importing it takes seconds."""

PARTITIONERS = ("dirichlet", "iid", "natural", "pathological", "shards")


@dataclass(frozen=True)
class TaskInfo:
    """What is known of a task without importing it.

    Parameters
    ----------
    models : tuple of str
        The first is the default.
    learning_rate : float
        Default of SGD with momentum 0.9.
    classes : int, optional
        Number of classes, where it does not depend on the data set chosen.
    train_examples : int, optional
        Number of training examples, where it does not depend on the data set chosen.
    test_examples : int
        Default cap of the central test set; 0 is all of it.
    roles : bool
        True where the data names the person whom each example comes from.
    """

    models: tuple[str, ...]
    learning_rate: float
    classes: int | None = None
    train_examples: int | None = None
    test_examples: int = 0
    roles: bool = False


TASKS = {
    "cifar10": TaskInfo(("cnn", "resnet18"), learning_rate=0.02, classes=10, train_examples=50_000),
    "digits": TaskInfo(("mlp",), learning_rate=0.05, classes=10, train_examples=1400),
    "medmnist": TaskInfo(("cnn", "resnet18"), learning_rate=0.02),
    "shakespeare": TaskInfo(("lstm",), learning_rate=0.2, classes=80, test_examples=2000, roles=True),
}


@dataclass(frozen=True)
class TaskOptions:
    """One task, its model, how its data is shared out and how a node trains.

    Field names are the keys of a run config with ``_`` for ``-``.

    Parameters
    ----------
    task : str
        ``cifar10``, ``digits``, ``medmnist`` or ``shakespeare``.
    model : str
        Empty: the task's first.
    dataset : str
        MedMNIST's flag, such as ``pathmnist``. Empty: ``pneumoniamnist``. Other tasks have none.
    partitioner : str
        ``iid``, ``dirichlet``, ``pathological``, ``shards`` or ``natural``; see :mod:`.partition`.
    alpha : float
        Concentration of ``dirichlet``, > 0: small is skewed, large is even.
    classes_per_node : int
        Classes that a node of ``pathological`` holds.
    shards_per_node : int
        Shards that a node of ``shards`` holds.
    data_dir : str
        Folder of the data. Empty: ``FLOWER_HPC_DATA``, else a download.
    num_rounds, local_epochs, batch_size : int
        All >= 1.
    learning_rate : float
        0: the task's default.
    test_examples : int
        Size of the central test set. 0: all; -1: the task's default.
    seed : int
        Of partitions, initial weights and the order of batches; >= 0.
    fraction_evaluate : float
        Part of the nodes that evaluate after a round, in [0, 1].

    Raises
    ------
    ConfigError
        A value that cannot work; one line.
    """

    task: str = "digits"
    model: str = ""
    dataset: str = ""
    partitioner: str = "iid"
    alpha: float = 0.5
    classes_per_node: int = 2
    shards_per_node: int = 1
    data_dir: str = ""
    num_rounds: int = 3
    local_epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 0.0
    test_examples: int = -1
    seed: int = 0
    fraction_evaluate: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot work; fill the task's defaults."""
        _one_of("task", self.task, TASKS)
        info = TASKS[self.task]
        _one_of(f"model of {self.task}", self.model or info.models[0], info.models)
        _one_of("partitioner", self.partitioner, PARTITIONERS)
        self._check_dataset()
        if self.partitioner == "natural" and not info.roles:
            raise ConfigError(
                f"partitioner 'natural' needs a task with roles (shakespeare), got task {self.task!r}"
            )
        _positive("alpha", self.alpha)
        for name in ("classes_per_node", "shards_per_node", *_COUNTS):
            _at_least(name, getattr(self, name), 1)
        _at_least("test_examples", self.test_examples, -1)
        _at_least("seed", self.seed, 0)
        if self.partitioner == "pathological" and self.classes_per_node > (info.classes or 2**31):
            raise ConfigError(
                f"classes-per-node must be at most {info.classes} for {self.task}, "
                f"got {self.classes_per_node}"
            )
        if self.learning_rate != 0:
            _positive("learning-rate", self.learning_rate, "> 0, or 0 for the task's default")
        if not 0 <= self.fraction_evaluate <= 1:
            raise ConfigError(f"fraction-evaluate must be in [0, 1], got {self.fraction_evaluate}")
        if self.data_dir and not Path(self.data_dir).expanduser().is_dir():
            raise ConfigError(f"data-dir must be a folder that exists, got {self.data_dir!r}")
        self._fill("model", self.model or info.models[0])
        self._fill("learning_rate", self.learning_rate or info.learning_rate)
        if self.test_examples == -1:
            self._fill("test_examples", info.test_examples)

    def _check_dataset(self) -> None:
        if self.task == "medmnist":
            self._fill("dataset", self.dataset or "pneumoniamnist")
            _one_of("dataset", self.dataset, MEDMNIST_2D)
        elif self.dataset:
            raise ConfigError(
                f"dataset must be empty for {self.task} (only medmnist has several), got {self.dataset!r}"
            )

    def _fill(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # frozen; only __post_init__ comes here

    @classmethod
    def from_config(cls, config: Mapping[str, bool | int | float | str]) -> Self:
        """Read a Flower run config; keys that are not ours are left alone.

        Raises
        ------
        ConfigError
            A value of the wrong type (a whole number may stand for a float) or out of range.
        """
        given: dict[str, Any] = {}
        for field in fields(cls):
            key = field.name.replace("_", "-")
            if key in config:
                given[field.name] = _typed(key, config[key], type(field.default))
        return cls(**given)


_COUNTS = ("num_rounds", "local_epochs", "batch_size")


def _typed(key: str, value: object, kind: type) -> object:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:  # exact: a bool is an int to isinstance
        raise ConfigError(f"{key} must be of type {kind.__name__}, got {value!r}")
    return value


def _one_of(what: str, value: str, allowed: Mapping[str, object] | tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{what} must be one of {', '.join(sorted(allowed))}, got {value!r}")


def _positive(what: str, value: float, allowed: str = "> 0") -> None:
    if not 0 < value < math.inf:
        raise ConfigError(f"{what} must be {allowed}, got {value}")


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"{name.replace('_', '-')} must be at least {least}, got {value}")
