"""Every key that server and clients agree on, named once.

A train message carries our keys in the ConfigRecord that it has anyway (Flower's clipping mods refuse a
second one). A reply that is an update carries a ConfigRecord named :data:`MARK`; a reply without it holds
full weights, so clients that know nothing of this package take part unchanged.
"""

from dataclasses import dataclass

from flwr.app import ConfigRecord, Message

# Flower's own conventions, which its strategies and apps share
ARRAYS = "arrays"
CONFIG = "config"
METRICS = "metrics"
NUM_EXAMPLES = "num-examples"
SERVER_ROUND = "server-round"
PROXIMAL_MU = "proximal-mu"

# in a train message's ConfigRecord
RUN = "flower-hpc.run"
VERSION = "flower-hpc.version"
DEADLINE_S = "flower-hpc.deadline-s"
REPLY_AS = "flower-hpc.reply-as"
RECEIVED_AT = "flower-hpc.received-at"  # written on the node, by the budget mod

# in a reply
MARK = "flower-hpc"
FORM = "form"
BASE_VERSION = "base-version"
NAME = "name"
UPDATE = "update"
WEIGHTS = "weights"

# in a SuperNode's node-config
NODE_NAME = "name"
PARTITION_ID = "partition-id"
NUM_PARTITIONS = "num-partitions"

# in the environment of a SuperLink that a federation started
STATE_ENV = "FLOWER_HPC_STATE"
DATA_ENV = "FLOWER_HPC_DATA"


@dataclass(frozen=True)
class Mark:
    """What a reply says of itself: its form, the version it started from, the node's name."""

    form: str = WEIGHTS
    base_version: int | None = None
    name: str = ""


def config_of(message: Message) -> ConfigRecord:
    """The ConfigRecord of a message: the first one, or an empty one that is not part of it."""
    return next(iter(message.content.config_records.values()), ConfigRecord())


def mark_of(reply: Message) -> Mark:
    """Read the mark of a reply; a reply without one holds weights."""
    record = reply.content.config_records.get(MARK)
    if record is None:
        return Mark()
    version = record.get(BASE_VERSION)
    return Mark(
        form=str(record.get(FORM, WEIGHTS)),
        base_version=version if isinstance(version, int) else None,
        name=str(record.get(NAME, "")),
    )


def write_mark(reply: Message, mark: Mark) -> None:
    """Mark a reply."""
    record = ConfigRecord({FORM: mark.form, NAME: mark.name})
    if mark.base_version is not None:
        record[BASE_VERSION] = mark.base_version
    reply.content[MARK] = record
