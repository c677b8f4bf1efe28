"""What travels between ranks: a small text, and data that is neither copied nor pickled."""

import pickle

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from flower_hpc.transport.base import identify
from flower_hpc.transport.mpi.parcel import LONG, pack, unpack


def a_message(**config: bytes) -> Message:
    identify()
    arrays = ArrayRecord({"w": Array(np.arange(5000, dtype=np.float32)), "b": Array(np.asarray(2.0))})
    metrics = MetricRecord({"loss": 0.5})
    records = {"arrays": arrays, "metrics": metrics, "config": ConfigRecord(dict(config) | {"lr": 0.1})}
    return Message(RecordDict(records), 3, "train")


def test_a_message_comes_back_as_it_was() -> None:
    before = a_message(short=b"x" * (LONG - 1), long=b"y" * LONG)
    text, data = pack(before)
    after = unpack(text, data)
    assert after.content == before.content
    assert after.metadata.dst_node_id == 3
    assert after.content["arrays"]["w"].numpy().tolist() == list(range(5000))


def test_neither_arrays_nor_long_bytes_are_in_the_text_or_copied() -> None:
    variate = bytes(range(256)) * 1000
    before = a_message(control=variate)
    text, data = pack(before)
    assert len(text) < 5000 < len(pickle.dumps(before))
    assert any(one is variate for one in data)
    assert any(one is before.content["arrays"]["w"].data for one in data)
    after = unpack(text, data)
    assert after.content["config"]["control"] is variate


@pytest.mark.parametrize("missing", [1, 3])
def test_a_text_without_its_data_is_no_message(missing: int) -> None:
    text, data = pack(a_message(control=b"z" * LONG))
    with pytest.raises(IndexError):
        unpack(text, data[: len(data) - missing])
