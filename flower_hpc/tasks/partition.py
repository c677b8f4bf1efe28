"""Which node gets which examples: flwr-datasets' partitioners, on labels alone.

``iid``           equal parts of the shuffled data
``dirichlet``     per class, shares drawn from Dirichlet(alpha) (Yurochkin et al. 2019,
                  https://arxiv.org/abs/1905.12022)
``pathological``  exactly k classes a node (Li et al. 2021, https://arxiv.org/abs/2102.02079)
``shards``        s pieces of the label-sorted data a node (McMahan et al. 2017,
                  https://arxiv.org/abs/1602.05629)
``natural``       one role a node, drawn by the seed among the roles with enough text

No example goes to two nodes. None is lost either, but for ``pathological`` with fewer places than classes
(a logged line says which are unused) and ``natural`` with fewer nodes than roles. The same seed gives the
same parts on every node that has the same NumPy and flwr-datasets.
"""

import contextlib
import hashlib
import io
import logging
import warnings
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ConfigError
from ..records import NDArray
from .data import remember
from .options import TaskOptions

if TYPE_CHECKING:
    from flwr_datasets.partitioner import Partitioner

log = logging.getLogger(__name__)

PADDING = -1
RETRIES = 20


def partition(
    labels: NDArray, options: TaskOptions, num_partitions: int, roles: NDArray | None = None
) -> list[NDArray]:
    """Share out the training examples.

    Parameters
    ----------
    labels : array of int, shape (examples,)
        Class of each example.
    options : TaskOptions
        ``partitioner`` and what belongs to it, ``seed``.
    num_partitions : int
        Number of nodes, >= 1.
    roles : array of int, shape (examples,), optional
        For ``natural``: the role of each example; a negative one has too little text for a node.

    Returns
    -------
    list of int64 arrays
        Per node the positions of its examples, in random order.

    Raises
    ------
    ConfigError
        More nodes than examples or roles, or shares that cannot be made.
    """
    if num_partitions < 1:
        raise ConfigError(f"num-partitions must be at least 1, got {num_partitions}")
    keys = roles if options.partitioner == "natural" else labels
    if keys is None:
        raise ConfigError("partitioner 'natural' needs examples with roles, got none")
    if num_partitions > len(keys):
        raise ConfigError(f"num-partitions must be at most the {len(keys)} examples, got {num_partitions}")
    made = remember(
        f"partitions/{_digest(keys, options, num_partitions)}",
        lambda: _join(_make(keys, options, num_partitions)),
    )
    return np.split(made["order"].astype(np.int64), made["ends"][:-1])


def _join(parts: list[NDArray]) -> dict[str, NDArray]:
    return {"order": np.concatenate(parts), "ends": np.cumsum([len(part) for part in parts])}


def _digest(keys: NDArray, options: TaskOptions, n: int) -> str:
    how = (options.partitioner, options.alpha, options.classes_per_node, options.shards_per_node)
    text = repr((1, how, options.seed, n, keys.shape, np.__version__, version("flwr-datasets")))
    return hashlib.sha256(text.encode() + np.ascontiguousarray(keys, "<i8").tobytes()).hexdigest()


def _make(keys: NDArray, options: TaskOptions, n: int) -> list[NDArray]:
    rng = np.random.default_rng(options.seed)
    if options.partitioner == "iid":
        return _iid(keys, n, rng)
    if options.partitioner == "dirichlet":
        return _dirichlet(keys, options, n)
    if options.partitioner == "pathological":
        return _pathological(keys, options, n, rng)
    if options.partitioner == "shards":
        return _shards(keys, options, n, rng)
    return _natural(keys, n, rng)


def _iid(labels: NDArray, n: int, rng: np.random.Generator) -> list[NDArray]:
    from flwr_datasets.partitioner import IidPartitioner

    # the partitioner cuts without shuffling
    return _apply(IidPartitioner(n), n, index=rng.permutation(len(labels)))


def _dirichlet(labels: NDArray, options: TaskOptions, n: int) -> list[NDArray]:
    from flwr_datasets.partitioner import DirichletPartitioner

    least = max(1, min(10, len(labels) // (10 * n)))
    for attempt in range(RETRIES):  # a fixed series of seeds, so that all nodes end at the same one
        seed = int(np.random.SeedSequence((options.seed, attempt)).generate_state(1)[0])
        partitioner = DirichletPartitioner(n, "label", options.alpha, min_partition_size=least, seed=seed)
        with contextlib.suppress(ValueError):  # its word for: some node would get too little
            return _apply(partitioner, n, index=np.arange(len(labels)), label=labels)
    raise ConfigError(
        f"alpha must be larger, or the nodes fewer, for {n} nodes to get {least} or more of "
        f"{len(labels)} examples each, got {options.alpha}"
    )


def _pathological(labels: NDArray, options: TaskOptions, n: int, rng: np.random.Generator) -> list[NDArray]:
    from flwr_datasets.partitioner import PathologicalPartitioner

    k = options.classes_per_node
    classes, codes = np.unique(labels, return_inverse=True)
    if k > len(classes):
        raise ConfigError(f"classes-per-node must be at most {len(classes)}, got {k}")
    # One place a class, dealt in turn; a node takes k neighbouring places. Drawing k classes at random
    # per node, as the partitioner can, leaves classes that nobody holds even where there is room.
    renamed = rng.permutation(len(classes))[codes]
    unused = classes[np.isin(np.arange(len(classes)), codes[renamed >= n * k])]
    if len(unused):
        log.warning(
            "classes %s are unused: %d nodes with %d classes each hold %d of %d",
            unused.tolist(), n, k, n * k, len(classes),
        )  # fmt: skip
    places = PathologicalPartitioner(
        n * k, "label", 1, class_assignment_mode="deterministic", seed=options.seed
    )
    try:
        parts = _apply(places, n * k, index=np.arange(len(labels)), label=renamed)
    except ValueError as error:
        fewest = int(np.bincount(codes).min())
        raise ConfigError(
            f"num-partitions x classes-per-node must leave an example for each holder of a class, "
            f"got {n} x {k} with {fewest} examples in the smallest of {len(classes)} classes"
        ) from error
    return [rng.permutation(np.concatenate(parts[i * k : (i + 1) * k])) for i in range(n)]


def _shards(labels: NDArray, options: TaskOptions, n: int, rng: np.random.Generator) -> list[NDArray]:
    from flwr_datasets.partitioner import ShardPartitioner

    count = n * options.shards_per_node
    if count > len(labels):
        raise ConfigError(
            f"num-partitions x shards-per-node must be at most the {len(labels)} examples, got {count}"
        )
    shuffled = rng.permutation(len(labels))
    ordered = shuffled[np.argsort(labels[shuffled], kind="stable")]
    # The partitioner drops what does not fill a shard: fill each with padding, removed afterwards.
    size = -(-len(labels) // count)
    shards = [np.pad(x, (0, size - len(x)), constant_values=PADDING) for x in np.array_split(ordered, count)]
    partitioner = ShardPartitioner(
        n, "rank", num_shards_per_partition=options.shards_per_node, seed=options.seed
    )
    index = np.concatenate(shards)
    parts = _apply(partitioner, n, index=index, rank=np.arange(len(index)))
    return [part[part != PADDING] for part in parts]


def _natural(roles: NDArray, n: int, rng: np.random.Generator) -> list[NDArray]:
    from flwr_datasets.partitioner import NaturalIdPartitioner

    eligible = np.unique(roles[roles >= 0])
    if n > len(eligible):
        raise ConfigError(
            f"num-partitions must be at most the {len(eligible)} roles with enough text, got {n}"
        )
    chosen = rng.choice(eligible, n, replace=False)
    # a row a role, not a row an example, of which there are millions
    found = _apply(NaturalIdPartitioner("role"), n, index=chosen, role=np.arange(n))
    return [rng.permutation(np.flatnonzero(roles == role[0])) for role in found]


def _apply(partitioner: "Partitioner", n: int, **columns: NDArray) -> list[NDArray]:
    from datasets import Dataset

    # Its warnings are handled above, its bar (NaturalIdPartitioner) counts rows that are there already.
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        partitioner.dataset = Dataset.from_dict(columns)
        return [np.asarray(partitioner.load_partition(i)["index"], dtype=np.int64) for i in range(n)]
