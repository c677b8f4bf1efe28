"""Rounds as jobs: the rest of an app runs in another process, and nothing else changes."""

import json
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import ClassVar

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from compressed import events, run
from conftest import make_app, stepping, weights
from flower_hpc import protocol
from flower_hpc.client import KeepBudget, Offload, ProfiledApp, budget_of
from flower_hpc.client.parcel import Order, find_modules, restamp
from flower_hpc.client.parcel import run as run_order
from flower_hpc.clock import VirtualClock, WallClock
from flower_hpc.compression import Compression, CompressUpdates, Int8, TopK
from flower_hpc.errors import ConfigError, JobFailed, JobLost
from flower_hpc.records import to_record, to_weights
from flower_hpc.strategies.history import NodeHistory
from flower_hpc.transport import InProcessGrid


@pytest.fixture(scope="module")
def pool():
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as made:
        yield made


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    for name in (protocol.NODE_STATE_ENV, protocol.JOB_STATE_ENV, protocol.OFFLOAD_ENV):
        monkeypatch.delenv(name, raising=False)
    InProcessGrid(make_app(stepping([0])), 1)  # says who we are, so that messages can be made here


def train(msg: Message, context: Context) -> Message:
    """Noisy steps, whose number and noise depend on how often this node was asked."""
    asked = context.state.config_records.setdefault("asked", ConfigRecord({"times": 0}))
    asked["times"] += 1
    received = to_weights(msg.content["arrays"])
    rng = np.random.default_rng([int(context.node_config[protocol.PARTITION_ID]), asked["times"]])
    arrays = {k: (x + rng.normal(size=x.shape)).astype(x.dtype) for k, x in received.items()}
    metrics = MetricRecord({"num-examples": asked["times"], "pid": os.getpid()})
    return Message(RecordDict({"arrays": to_record(arrays), "metrics": metrics}), reply_to=msg)


def app_of(fn, mods):
    app = ProfiledApp(mods=mods)
    app.train()(fn)
    return app


def message(config=None, kind="train", arrays=None):
    content = {"arrays": weights() if arrays is None else arrays, "config": ConfigRecord(config or {})}
    return Message(RecordDict(content), 1, kind)


def context():
    return Context(1, 1, {protocol.PARTITION_ID: 0}, RecordDict(), {})


class Slow(Executor):
    """A queue that moves when it is told to; what is submitted runs here."""

    def __init__(self, fails=(), starts=True):
        self.fails, self.starts, self.asked, self.futures = list(fails), starts, [], []

    def submit(self, fn, /, *args, minutes=None):
        self.asked.append(minutes)
        future = Future()
        future.job, future.reason = f"job {len(self.asked)}", "Priority"
        self.futures.append(future)
        if self.fails:
            future.set_exception(self.fails.pop(0))
        elif self.starts:
            future.set_result(fn(*args))
        return future


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


# time


def left(msg, context):
    budget = budget_of(msg)
    metrics = MetricRecord({"left": budget.left(), "seconds": budget.seconds})
    return Message(RecordDict({"arrays": weights(), "metrics": metrics}), reply_to=msg)


def test_the_budget_goes_on_in_the_job_from_the_receipt_on(pool):
    mods = [KeepBudget(), lambda m, c, call_next: time.sleep(0.3) or call_next(m, c), Offload(pool)]
    metrics = app_of(left, mods)(message({protocol.DEADLINE_S: 100.0}), context()).content["metrics"]
    assert metrics["seconds"] == 100.0
    assert 40 < metrics["left"] <= 99.7


def test_a_message_without_a_deadline_has_an_endless_budget_there_too(pool):
    metrics = app_of(left, [KeepBudget(), Offload(pool)])(message(), context()).content["metrics"]
    assert metrics["left"] == float("inf")


def test_the_budget_ends_at_the_same_wall_time_whatever_a_host_s_clock_counts_from():
    class Elsewhere(VirtualClock):
        def wall(self):
            return 1e9 + self.now()

    there, msg = Elsewhere(5000.0), message({protocol.DEADLINE_S: 60.0, protocol.RECEIVED_AT: 7.0})
    restamp(msg, there.wall() + 20, there)
    assert budget_of(msg, there).left() == pytest.approx(20)
    assert budget_of(msg, there).seconds == 60


def test_a_job_s_own_stop_file_ends_its_budget(tmp_path, monkeypatch):
    monkeypatch.setenv(protocol.JOB_STATE_ENV, str(tmp_path))
    budget = budget_of(message())
    (tmp_path / "stop").touch()
    assert budget.spent()


def test_a_job_still_queued_at_the_deadline_is_cancelled():
    queue = Slow(starts=False)
    with pytest.raises(JobFailed, match=r"^job 1: still in the queue after \d s: Priority$"):
        app_of(train, [KeepBudget(), Offload(queue)])(message({protocol.DEADLINE_S: 0.2}), context())
    assert queue.futures[0].cancelled()


def test_a_running_job_has_a_little_longer():
    queue = Slow(starts=False)
    submit = queue.submit

    def submit_and_start(fn, /, *args, minutes=None):
        submit(fn, *args, minutes=minutes).set_running_or_notify_cancel()
        return queue.futures[-1]

    queue.submit = submit_and_start
    with pytest.raises(JobFailed, match=r"^job 1: not done after \d s: Priority$"):
        app_of(train, [Offload(queue, grace_s=1)])(message({protocol.DEADLINE_S: 0.2}), context())


def test_the_time_limit_is_what_is_left_and_the_grace():
    queue = Slow()
    app = app_of(train, [KeepBudget(), Offload(queue, grace_s=60)])
    app(message({protocol.DEADLINE_S: 600.0}), context())
    app(message(), context())
    assert queue.asked == [11, None]


def test_a_node_that_is_to_stop_submits_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv(protocol.NODE_STATE_ENV, str(tmp_path))
    (tmp_path / "stop").touch()
    queue = Slow()
    with pytest.raises(JobFailed, match=r"no job was submitted: .* the node is to stop"):
        app_of(train, [Offload(queue)])(message(), context())
    assert not queue.asked


def test_whatever_ends_the_waiting_cancels_the_job(monkeypatch):
    queue = Slow(starts=False)

    def stopped(*args, **kwargs):
        raise SystemExit(1)  # as Flower's handler of SIGTERM does

    monkeypatch.setattr("flower_hpc.client.offload.wait", stopped)
    with pytest.raises(SystemExit):
        app_of(train, [Offload(queue)])(message(), context())
    assert queue.futures[0].cancelled()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_cancels_the_job_before_whatever_else_it_does(number):
    queue, seen = Slow(starts=False), []

    def flower_s(*_):
        seen.append(queue.futures[0].cancelled())
        raise SystemExit(1)

    before = signal.signal(number, flower_s)
    try:
        threading.Timer(0.2, signal.raise_signal, [number]).start()
        with pytest.raises(SystemExit):
            app_of(train, [Offload(queue)])(message(), context())
        assert signal.getsignal(number) is flower_s
    finally:
        signal.signal(number, before)
    assert seen == [True]


# lost jobs


def test_a_lost_job_is_submitted_again_and_counted():
    class Hurried(WallClock):
        slept: ClassVar[list[float]] = []

        def sleep(self, seconds):
            self.slept.append(seconds)

    queue, clock = Slow([JobLost("job 1: PREEMPTED"), JobLost("job 2: NODE_FAIL")]), Hurried()
    reply = app_of(train, [Offload(queue, clock=clock)])(message({protocol.RUN: "r"}), context())
    assert len(queue.asked) == 3
    assert reply.content["metrics"][protocol.JOB_RETRIES] == 2
    assert clock.slept == [0, 1]


def test_there_is_an_end_to_trying_again_only_without_a_deadline():
    losses = [JobLost(f"job {k}: PREEMPTED") for k in range(1, 9)]
    mods = [Offload(queue := Slow(losses[:4]), clock=VirtualClock())]
    with pytest.raises(JobLost, match="job 4"):
        app_of(train, mods)(message(), context())
    mods = [Offload(queue := Slow(losses[:7]), clock=VirtualClock())]
    app_of(train, mods)(message({protocol.DEADLINE_S: 1e6}), context())
    assert len(queue.asked) == 8


def test_a_job_that_failed_by_its_own_fault_is_not_submitted_again():
    queue = Slow([JobFailed("job 1: OUT_OF_MEMORY")])
    with pytest.raises(JobFailed, match="OUT_OF_MEMORY"):
        app_of(train, [Offload(queue)])(message(), context())
    assert len(queue.asked) == 1


def test_a_broken_pool_is_made_anew_where_that_is_possible():
    broken, good = Slow([BrokenExecutor("a worker died")]), Slow()
    made = [broken, good]
    app = app_of(train, [Offload(lambda: made.pop(0), clock=VirtualClock())])
    app(message(), context())
    assert [len(broken.asked), len(good.asked)] == [1, 1]
    with pytest.raises(BrokenExecutor):
        app_of(train, [Offload(Slow([BrokenExecutor("a worker died")]))])(message(), context())


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
