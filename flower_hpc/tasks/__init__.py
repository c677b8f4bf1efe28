"""Models and real data behind one small interface; ``load`` imports a task's libraries, nothing else does.

>>> task = load(TaskOptions(task="digits"))           # doctest: +SKIP
>>> model, mine = task.build_model(), task.load_partition(0, 4)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from .options import TASKS, TaskOptions
from .sgd import Training

if TYPE_CHECKING:
    from .base import Task

__all__ = ["TASKS", "TaskOptions", "Training", "load", "seed_of"]

_loaded: dict[TaskOptions, "Task[Any]"] = {}


def load(options: TaskOptions) -> "Task[Any]":
    """The task that ``options`` describe; its data is read when it is first asked for.

    A process keeps the last task that it loaded, because Flower's simulation runs many clients in one
    process and would otherwise read the data anew for each message.

    Parameters
    ----------
    options : TaskOptions
        Checked already. An empty ``data_dir`` is filled from ``FLOWER_HPC_DATA``.

    Raises
    ------
    ConfigError
        The task's libraries are not installed.
    """
    from .data import with_environment

    options = with_environment(options)
    if options not in _loaded:
        from ..errors import ConfigError

        try:
            module = import_module(f".{options.task}", __name__)
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"task {options.task!r} needs {error.name}: pip install 'flower-hpc[tasks]'"
            ) from error
        _loaded.clear()
        _loaded[options] = module.create(options)
    return _loaded[options]


def seed_of(*parts: int) -> int:
    """One seed from several, as (seed, round, partition): different tuples, unrelated seeds."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
