"""Rounds as jobs: the rest of an app runs in another process, and nothing else changes."""

import json
import multiprocessing
import os
import socket
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from compressed import events, run
from conftest import make_app, stepping, weights
from flower_hpc import protocol
from flower_hpc.client import KeepBudget, Offload
from flower_hpc.client.parcel import Order, find_modules
from flower_hpc.client.parcel import run as run_order
from flower_hpc.compression import Compression, CompressUpdates, Int8, TopK
from flower_hpc.errors import ConfigError, JobFailed
from flower_hpc.records import to_record, to_weights
from flower_hpc.strategies.history import NodeHistory
from flower_hpc.transport import InProcessGrid
from offloading import Slow, app_of, context, message, train


@pytest.fixture(scope="module")
def pool():
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as made:
        yield made


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    for name in (protocol.NODE_STATE_ENV, protocol.JOB_STATE_ENV, protocol.OFFLOAD_ENV):
        monkeypatch.delenv(name, raising=False)
    InProcessGrid(make_app(stepping([0])), 1)  # says who we are, so that messages can be made here


# what comes back


def test_a_run_through_jobs_equals_the_plain_run_bit_for_bit(pool, tmp_path):
    def final(*offload, **options):
        mods = [CompressUpdates(), KeepBudget(), *offload]
        how = Compression(up=TopK(0.1) >> Int8(64), small=0)  # with what was not sent kept for later
        return run(InProcessGrid(app_of(train, mods), 3), rounds=4, compression=how, **options)["w"]

    np.testing.assert_array_equal(final(Offload(pool), run_dir=tmp_path), final())
    queues = [e["queue_s"] for e in events(tmp_path, "reply_accepted")]
    assert len(queues) == 12
    assert all(q >= 0 for q in queues)


def test_the_app_runs_in_the_other_process_and_its_state_comes_back(pool):
    app, here = app_of(train, [Offload(pool)]), context()
    first, second = app(message(), here), app(message(), here)
    assert first.content["metrics"]["pid"] == second.content["metrics"]["pid"] != os.getpid()
    assert here.state["asked"]["times"] == second.content["metrics"]["num-examples"] == 2


def test_an_app_without_a_module_and_mods_behind_this_one_travel_too(pool):
    factor, seen = 3.0, []

    def doubled(msg, context, call_next):
        reply = call_next(msg, context)
        reply.content["arrays"] = to_record({"w": 2 * to_weights(reply.content["arrays"])["w"]})
        return reply

    def local(msg, context):
        seen.append(1)
        return Message(RecordDict({"arrays": weights(factor), "metrics": MetricRecord()}), reply_to=msg)

    reply = app_of(local, [Offload(pool), doubled])(message(), context())
    assert to_weights(reply.content["arrays"])["w"].tolist() == [6.0] * 3
    assert not seen


def failing(msg, context):
    raise ValueError("no such\npartition")


def test_an_error_names_the_job_and_keeps_its_traceback(pool):
    with pytest.raises(JobFailed) as error:
        app_of(failing, [Offload(pool)])(message(), context())
    assert str(error.value) == f"the job on {socket.gethostname()}: ValueError: no such partition"
    assert 'raise ValueError("no such\\npartition")' in "".join(error.value.__notes__)


def test_an_app_that_cannot_be_found_there_is_an_error_of_the_job():
    order = Order(b"cno_such_module\nf\n.", (), time.time())
    assert run_order(order, message(), context()).error.startswith(
        "ModuleNotFoundError: No module named 'no_"
    )


def test_folders_of_modules_come_first_and_once(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", ["/usr"])
    find_modules((str(tmp_path), "/no/such/folder", "/usr"))
    assert sys.path == [str(tmp_path), "/usr"]


# where it runs


def test_without_the_variable_the_app_runs_in_place():
    reply = app_of(train, [Offload()])(message(), context())
    assert reply.content["metrics"]["pid"] == os.getpid()
    assert protocol.QUEUE_S not in reply.content["metrics"]


def factory(settings):
    factory.settings.append(settings)
    return ThreadPoolExecutor(1, thread_name_prefix=settings["prefix"])


factory.settings = []


def test_the_variable_names_a_factory_that_is_called_once(monkeypatch):
    value = {"executor": "test_offload:factory", "prefix": "mine", "grace_s": 5, "messages": ["evaluate"]}
    monkeypatch.setenv(protocol.OFFLOAD_ENV, json.dumps(value))

    def threads(msg, context):
        name = threading.current_thread().name
        return Message(RecordDict({"c": ConfigRecord({"thread": name})}), reply_to=msg)

    app = ClientApp(mods=[Offload()])
    app.train()(threads)
    app.evaluate()(threads)
    names = [app(message(kind=kind), context()).content["c"]["thread"] for kind in ("train", "evaluate") * 2]
    assert names == ["MainThread", "mine_0"] * 2
    assert factory.settings == [{"prefix": "mine"}]


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("{", "must be a JSON object: "),
        ("[1]", r"must be a JSON object, got '\[1\]'"),
        ("{}", "executor must be 'module:factory'"),
        ('{"executor": "json:nothing"}', "executor must be 'module:factory': .*nothing"),
        ('{"executor": "json:loads", "grace_s": -1}', "grace_s must be a number > 0, got -1"),
    ],
)
def test_a_variable_that_makes_no_sense_is_refused_in_one_line(monkeypatch, value, line):
    monkeypatch.setenv(protocol.OFFLOAD_ENV, value)
    with pytest.raises(ConfigError, match=line):
        app_of(train, [Offload()])(message(), context())


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="max_retries must be a whole number >= 0, got -1"):
        Offload(max_retries=-1)


# what is reported


def test_the_queue_is_told_to_servers_of_ours_alone_and_added_to_what_the_app_says():
    def queued(msg, context):
        metrics = MetricRecord({protocol.QUEUE_S: 5.0})
        return Message(RecordDict({"arrays": weights(), "metrics": metrics}), reply_to=msg)

    app = app_of(queued, [Offload(Slow())])
    assert app(message(), context()).content["metrics"][protocol.QUEUE_S] == 5.0
    assert app(message({protocol.RUN: ""}), context()).content["metrics"][protocol.QUEUE_S] >= 5.0
    past = NodeHistory()
    past.learn(app(message({protocol.RUN: ""}), context()).content["metrics"], 20.0, False)
    assert past.queues_s[0] >= 5.0


def test_arrays_of_any_type_come_back_as_they_were_sent(pool):
    record = to_record({"w": np.arange(6, dtype=np.float16).reshape(2, 3), "n": np.array(3)})

    def echo(msg, context):
        return Message(RecordDict({"arrays": msg.content["arrays"], "metrics": MetricRecord()}), reply_to=msg)

    reply = app_of(echo, [Offload(pool)])(message(arrays=record), context())
    assert isinstance(reply.content["arrays"], ArrayRecord)
    assert {k: (a.dtype, a.data) for k, a in reply.content["arrays"].items()} == {
        k: (a.dtype, a.data) for k, a in record.items()
    }
