"""The node's half of compressed models: read what came, and keep it for the next message to build on."""

from collections.abc import Mapping
from typing import Any

from flwr.app import Array, ArrayRecord

from ..errors import ReplyError
from ..protocol import DELTA_FROM, KEEP_MODEL, VERSION
from ..records import NUMPY_STYPE, Weights, densify
from .keeping import Keeping
from .update import apply, decode

MODEL = "model"


def is_plain(record: ArrayRecord, config: Mapping[str, Any]) -> bool:
    """Whether a message's model travels as Flower itself would send it, and is not to be kept."""
    special = DELTA_FROM in config or config.get(KEEP_MODEL) is True
    return not special and all(array.stype == NUMPY_STYPE for array in record.values())


def read_model(
    record: ArrayRecord, config: Mapping[str, Any], keeping: Keeping
) -> tuple[Weights, int | None]:
    """A message's model, and its version if it is kept now.

    Raises
    ------
    ReplyError
        A change of a model that this node does not have.
    """
    version = config.get(VERSION)
    since = config.get(DELTA_FROM)
    weights = _changed(record, since, keeping) if isinstance(since, int) else densify(decode(record))
    if config.get(KEEP_MODEL) is not True or not isinstance(version, int):
        return weights, None
    kept = keeping.save(MODEL, {"version": version, "weights": weights})
    return weights, version if kept else None


def _changed(record: ArrayRecord, since: int, keeping: Keeping) -> Weights:
    steps: dict[int, dict[str, Array]] = {}
    for key, array in record.items():
        number, _, name = key.partition("/")
        if not number.isdecimal():
            raise ReplyError(f"a change is named {key!r}, expected <version>/<array>")
        steps.setdefault(int(number), {})[name] = array
    kept = keeping.load(MODEL)
    if kept is None or kept["version"] < since:
        held = "none" if kept is None else f"version {kept['version']}"
        raise ReplyError(f"this node was sent a change of model version {since}, but holds {held}")
    weights: Weights = kept["weights"]
    for version in sorted(steps):
        if version > kept["version"]:
            weights = apply(weights, decode(ArrayRecord(steps[version])))
    return weights
