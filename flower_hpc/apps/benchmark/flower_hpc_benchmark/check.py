"""What can be known to be wrong before a run is submitted; imports neither torch nor data libraries."""

from collections.abc import Mapping

from flower_hpc.errors import ConfigError
from flower_hpc.tasks.options import TaskOptions


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
    if options.task == "digits" and options.partitioner == "shards":
        shards = num_nodes * options.shards_per_node
        if shards > 1437:
            raise ConfigError(
                f"nodes x shards-per-node must be at most the 1437 training digits, got {shards}"
            )
