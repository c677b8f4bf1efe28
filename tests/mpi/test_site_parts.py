"""What a site's processes are made of: who may speak to whom, what ranks keep, where they meet."""

import logging
import os
import pickle
import socket
from contextlib import contextmanager

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from flower_hpc.client.parcel import Order
from flower_hpc.client.site.ask import PLACE, SOCKET, ask
from flower_hpc.client.site.call import Call
from flower_hpc.client.site.inner import HOST, MEET, PORT, RUNS, TASK, Clients, Task
from flower_hpc.client.site.job import _Door, _listening
from flower_hpc.client.site.options import SiteOptions
from flower_hpc.client.site.wire import send
from flower_hpc.clock import WALL
from flower_hpc.errors import JobFailed
from flower_hpc.transport.base import identify

ORDER = Order(app=b"", path=(), submitted=0.0)


def counted(message, context):
    """An app that counts its messages."""
    seen = context.state.config_records.setdefault("seen", ConfigRecord({"messages": 0}))
    seen["messages"] += 1
    return Message(RecordDict({"seen": ConfigRecord(dict(seen))}), reply_to=message)


@contextmanager
def somebody_else(monkeypatch):
    """Who asks now is not the user that the other end belongs to."""
    with monkeypatch.context() as patch:
        uid = os.geteuid()
        patch.setattr(os, "geteuid", lambda: uid + 1)
        yield


def call():
    return Call(ORDER, "train", RecordDict(), 60.0, 7, {}, {}, "num-examples")


def test_another_user_s_job_is_not_asked(tmp_path, monkeypatch):
    (tmp_path / PLACE).mkdir()
    said = r"must belong to user \d+"
    job, refused = _listening(tmp_path / PLACE / SOCKET), pytest.raises(JobFailed, match=said)
    with job, somebody_else(monkeypatch), refused:
        ask(SiteOptions(clients=1), tmp_path, call(), WALL)


def test_another_user_s_message_is_not_read(tmp_path, monkeypatch, caplog):
    ours, theirs = socket.socketpair()
    with ours, theirs, somebody_else(monkeypatch), caplog.at_level(logging.WARNING):
        send(theirs, call())
        door = _Door(None, tmp_path / SOCKET, lambda: True)  # it has nobody to ask
        door.serve(ours)
        assert door.open
    assert "refused: the other end of the site's socket must belong to user" in caplog.text


def answered(clients, run_id, node_id=1):
    identify()
    task = Task(Order(pickle.dumps(counted), (), 0.0), run_id, {}, {})
    message = Message(RecordDict({TASK: task.record()}), node_id, "train")
    reply = clients(message, Context(run_id, node_id, {}, RecordDict(), {}))
    return reply.content["seen"]["messages"]


def test_ranks_keep_the_states_of_the_latest_runs_alone():
    clients = Clients()
    assert [answered(clients, run) for run in (1, 1, 2)] == [1, 2, 1]
    for run in range(3, RUNS + 2):
        answered(clients, run)
        assert answered(clients, 2) > 1  # one that goes on stays
    assert answered(clients, 1) == 1


def test_a_port_to_meet_at_is_given_to_nobody_else():
    identify()
    clients = Clients()
    meet = clients(Message(RecordDict(), 1, MEET), Context(7, 1, {}, RecordDict(), {})).content[TASK]
    assert meet[HOST] == socket.gethostname()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("", meet[PORT]))
    with socket.socket(socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET) as torch:
        torch.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        torch.bind(("", meet[PORT]))
        torch.listen()
    clients._held.close()  # else as long as its rank lives
