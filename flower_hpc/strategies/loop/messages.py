"""The message that leaves, made from the one that a strategy configured."""

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from ...protocol import CONFIG, config_of
from ...records import num_bytes, records_of
from ..work import Assignment


def replaced(content: RecordDict, model: ArrayRecord, arrays: ArrayRecord) -> RecordDict:
    """A message's content with other arrays in place of the model's own record."""
    return RecordDict({k: arrays if record is model else record for k, record in content.items()})


def outgoing(message: Message, content: RecordDict, asks: Assignment, ttl_s: float, number: int) -> Message:
    """``message`` with this content and ``asks`` in its config, its time to live and its round.

    The config is copied, since strategies share one among all messages of a round; the arrays are shared.
    """
    key = next(iter(records_of(content, ConfigRecord)), CONFIG)
    content[key] = ConfigRecord(dict(config_of(message)) | dict(asks))
    meta = message.metadata
    return Message(content, meta.dst_node_id, meta.message_type, ttl=ttl_s, group_id=str(number))


def message_bytes(message: Message) -> int:
    """Bytes of a message's arrays, and of what travels beside them; framing is not counted."""
    if message.has_error():
        return 0
    arrays = sum(num_bytes(record) for record in records_of(message.content, ArrayRecord).values())
    return arrays + bytes_beside(message)


def bytes_beside(message: Message) -> int:
    """What travels as bytes in config records: SCAFFOLD's control variate."""
    records = records_of(message.content, ConfigRecord).values()
    return sum(len(value) for record in records for value in record.values() if isinstance(value, bytes))


def release(content: RecordDict) -> None:
    """Let go of a message's arrays at once.

    Flower's records refer to each other in a circle: left alone, their bytes stay until the garbage collector
    happens by, and a round of 32 replies of 40 MB held ten of them.
    """
    for record in records_of(content, ArrayRecord).values():
        record.clear()
