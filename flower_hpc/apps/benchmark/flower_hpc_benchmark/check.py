"""What can be known to be wrong before a run is submitted; imports neither torch nor data libraries."""

from collections.abc import Mapping

from flower_hpc.errors import ConfigError
from flower_hpc.tasks.options import TASKS, TaskOptions


def check(run_config: Mapping[str, bool | int | float | str], num_nodes: int | None = None) -> None:
    """Refuse a run config that cannot work.

    Parameters
    ----------
    run_config : mapping
        All of it, defaults included.
    num_nodes : int, optional
        Nodes of the federation, where known.

    Raises
    ------
    ConfigError
        One line: what, which value, what is allowed.
    """
    options = TaskOptions.from_config(run_config)
    if num_nodes is None:
        return
    if num_nodes < 1:
        raise ConfigError(f"number of nodes must be at least 1, got {num_nodes}")
    pieces = num_nodes * (options.shards_per_node if options.partitioner == "shards" else 1)
    examples = TASKS[options.task].train_examples
    if examples is not None and pieces > examples:
        raise ConfigError(
            f"nodes must be few enough for the {examples} training examples of {options.task}, "
            f"got {num_nodes} nodes, {pieces} parts"
        )
