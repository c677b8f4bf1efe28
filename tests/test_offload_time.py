"""Rounds as jobs: what a message may cost, queue included, and what becomes of lost jobs."""

import multiprocessing
import signal
import threading
import time
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from typing import ClassVar

import pytest
from flwr.app import Message, MetricRecord, RecordDict

from conftest import make_app, stepping, weights
from flower_hpc import protocol
from flower_hpc.client import KeepBudget, Offload, budget_of
from flower_hpc.client.parcel import restamp
from flower_hpc.clock import VirtualClock, WallClock
from flower_hpc.errors import JobFailed, JobLost
from flower_hpc.launchers.base import JobState, JobStatus
from flower_hpc.launchers.slurm_future import failure_of
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


@pytest.mark.parametrize(
    ("state", "reason", "kind", "words"),
    [
        (JobState.PREEMPTED, "PREEMPTED", JobLost, "Slurm job 7: PREEMPTED; its last line: step 3"),
        (JobState.FAILED, "NODE_FAIL", JobLost, "Slurm job 7: NODE_FAIL; its last line: step 3"),
        (JobState.FAILED, "OUT_OF_MEMORY", JobFailed, "Slurm job 7: OUT_OF_MEMORY; its last line: step 3"),
        (JobState.TIMEOUT, "TIMEOUT (TimeLimit)", JobFailed, "Slurm job 7: TIMEOUT (TimeLimit); its last"),
        (JobState.SUCCEEDED, "", JobFailed, "Slurm job 7: it ended well, but left no result within 60 s"),
    ],
)
def test_preempted_jobs_and_those_of_lost_nodes_are_lost_and_others_failed(state, reason, kind, words):
    error = failure_of("Slurm job 7", JobStatus(state, reason), "step 3")
    assert type(error) is kind
    assert str(error).startswith(words)
