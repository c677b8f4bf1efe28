"""Rounds as jobs of a real Slurm: sized, cancelled, preempted, left alone by whoever waited for them."""

import os
import signal
import subprocess
import sys
import time

import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from conftest import make_app, stepping, weights
from flower_hpc import protocol
from flower_hpc.client import KeepBudget, Offload, budget_of
from flower_hpc.errors import ConfigError, JobFailed, LaunchError
from flower_hpc.launchers import job_files
from flower_hpc.launchers.attended import beat, leave
from flower_hpc.launchers.executor import SlurmExecutor, from_settings
from flower_hpc.launchers.slurm_site import SlurmOptions
from flower_hpc.transport import InProcessGrid

WAITER = """
import signal, sys, time
from pathlib import Path
from flower_hpc.launchers import job_files
from flower_hpc.launchers.attended import beat, leave
from flower_hpc.launchers.executor import from_settings

def work(mark):
    import time
    Path(mark).touch()
    time.sleep(300)

signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # as flwr-clientapp does
executor = from_settings({"folder": sys.argv[1], "poll_s": 0.3, "patience_s": 2,
                          "options": {"nodelist": "vn1"}})
executor.submit(work, sys.argv[2])
Path(sys.argv[3]).touch()
time.sleep(300)
"""


@pytest.fixture
def executor(slurm, tmp_path):
    """Make executors, which end with the test."""
    made = []

    def make(**options):
        own = {k: options.pop(k) for k in ("patience_s", "keep", "env") if k in options}
        options = {"folder": tmp_path / "jobs", "minutes": 2, **options}
        made.append(SlurmExecutor(SlurmOptions(**options), poll_s=0.3, **own))
        return made[-1]

    yield make
    for one in made:
        one.shutdown(wait=False)


@pytest.fixture
def waiter(slurm, tmp_path):
    """A process that has submitted a job to vn1 and waits; the job makes the file ``began``."""
    script, submitted = tmp_path / "waiter.py", tmp_path / "submitted"
    script.write_text(WAITER)
    words = [sys.executable, script, tmp_path / "jobs", tmp_path / "began", submitted]
    with subprocess.Popen(words) as process:
        try:
            slurm.wait_until(lambda: submitted.exists() or process.poll() is not None, 60)
            assert submitted.exists()
            yield process
        finally:
            process.kill()


@pytest.fixture
def blocked(slurm):
    """vn1 is taken; called, it is free again."""
    command = ("sbatch", "--parsable", "-p", "cpu", "-w", "vn1", "--exclusive", "--wrap", "sleep 300")
    job = slurm.run(*command, "-o", "/dev/null").strip()
    slurm.wait_until(lambda: (job, "RUNNING") in states(slurm), 20)
    yield lambda: slurm.run("scancel", job)
    slurm.run("scancel", job)


def states(slurm):
    return [(job, state) for job, _, state in slurm.jobs()]


def app_of(fn, *mods):
    app = ClientApp(mods=[KeepBudget(), *mods])
    app.train()(fn)
    return app


def message(**config):
    InProcessGrid(make_app(stepping([0])), 1)  # says who we are, so that messages can be made here
    content = {"arrays": weights(), "config": ConfigRecord({protocol.RUN: "r", **config})}
    return Message(RecordDict(content), 1, "train")


def context():
    return Context(1, 1, {}, RecordDict(), {})


def test_a_round_holds_a_gpu_only_while_its_job_runs(slurm, executor, tmp_path, monkeypatch):
    def train(msg, context):
        context.state["kept"] = ConfigRecord({"left": budget_of(msg).left()})
        seen = {k: os.environ.get(k, "") for k in ("CUDA_VISIBLE_DEVICES", "SLURM_CPUS_PER_TASK", "MY_TOKEN")}
        seen["data"] = os.environ[protocol.DATA_ENV]
        content = {"arrays": msg.content["arrays"], "metrics": MetricRecord({"num-examples": 1})}
        return Message(RecordDict({**content, "seen": ConfigRecord(seen)}), reply_to=msg)

    monkeypatch.setenv("MY_TOKEN", "secret")
    monkeypatch.setenv("SLURM_JOB_ID", "1")  # of a job around this one
    monkeypatch.setenv(protocol.DATA_ENV, "/data")
    here = context()
    gpu = executor(partition="gpu", gpus="1", cpus=2)
    reply = app_of(train, Offload(gpu))(message(**{protocol.DEADLINE_S: 100.0}), here)
    assert dict(reply.content["seen"]) == {
        "CUDA_VISIBLE_DEVICES": "0",
        "SLURM_CPUS_PER_TASK": "2",
        "MY_TOKEN": "",
        "data": "/data",
    }
    assert 0 < here.state["kept"]["left"] < 100
    assert reply.content["metrics"][protocol.QUEUE_S] >= 0
    slurm.wait_until(lambda: not slurm.jobs(), 20)
    gpu.shutdown()
    assert not list((tmp_path / "jobs").iterdir())


def test_a_preempted_job_is_submitted_again(slurm, executor, tmp_path):
    first = tmp_path / "first"

    def train(msg, context):
        if not first.exists():
            first.touch()
            time.sleep(300)
        content = {"arrays": msg.content["arrays"], "metrics": MetricRecord({"num-examples": 1})}
        return Message(RecordDict(content), reply_to=msg)

    app = app_of(train, Offload(executor(partition="preempt", options={"nodelist": "vn1"})))
    take = "sbatch -p cpu -w vn1 --exclusive -o /dev/null --wrap"
    code = f"until [ -e {first} ]; do sleep 0.1; done; {take} 'sleep 1'"
    with subprocess.Popen(["bash", "-c", code], stdout=subprocess.DEVNULL):
        reply = app(message(**{protocol.DEADLINE_S: 200.0}), context())
    assert reply.content["metrics"][protocol.JOB_RETRIES] == 1


def test_a_job_still_queued_at_the_deadline_is_cancelled(slurm, executor, blocked):
    pool = executor(options={"nodelist": "vn1"})
    app = app_of(lambda msg, context: msg, Offload(pool))
    with pytest.raises(JobFailed, match=r"^Slurm job \d+: still in the queue after \d+ s: "):
        app(message(**{protocol.DEADLINE_S: 1.5}), context())
    assert [state for _, state in states(slurm)] == ["RUNNING"]


def test_a_job_that_is_told_to_end_replies_with_what_it_has(slurm, executor, tmp_path):
    began = tmp_path / "began"

    def train(msg, context):
        began.touch()
        budget = budget_of(msg)
        while not budget.spent():
            time.sleep(0.1)
        content = {"arrays": msg.content["arrays"], "metrics": MetricRecord({"left": budget.left()})}
        return Message(RecordDict(content), reply_to=msg)

    app = app_of(train, Offload(executor()))
    code = f"until [ -e {began} ]; do sleep 0.1; done; scancel -s USR2 -n flower-hpc-offload"
    with subprocess.Popen(["bash", "-c", code]):
        assert app(message(), context()).content["metrics"]["left"] == 0


def test_what_a_job_ends_with_is_said_in_slurm_s_words(slurm, executor):
    made = executor()
    with pytest.raises(
        JobFailed, match=r"^Slurm job \d+: FAILED \(NonZeroExitCode\); its last line: out of .*"
    ):
        made.submit(lambda: (print("out of luck"), os._exit(3))).result()
    with pytest.raises(JobFailed, match=r"^Slurm job \d+: ZeroDivisionError: integer "):
        made.submit(lambda: 1 // 0).result()
    with pytest.raises(JobFailed, match=r"would wait for ever: Partition"):
        executor(partition="short", minutes=30).submit(print).result()
    with pytest.raises(LaunchError, match=r"^sbatch: invalid partition specified: none; "):
        executor(partition="none").submit(print)
    logs = [file.name.partition("_")[2] for file in made.folder.glob("[0-9]*")]
    assert sorted(logs) == ["0_log.out", "0_log.out", "submission.sh", "submission.sh"]


def test_a_future_knows_where_its_job_is_and_cancels_it(slurm, executor, blocked):
    queued = executor(options={"nodelist": "vn1"}).submit(time.sleep, 300)
    running = executor(options={"nodelist": "vn2"}).submit(time.sleep, 300)
    slurm.wait_until(lambda: running.running() and queued.reason, 20)
    assert not queued.running()
    for future in (queued, running):
        future.cancel()
        assert future.cancelled()
    assert slurm.wait_until(lambda: len(slurm.jobs()) == 1, 20)


def test_when_its_waiter_is_killed_a_running_job_ends(slurm, waiter, tmp_path):
    slurm.wait_until((tmp_path / "began").exists, 30)
    waiter.kill()
    slurm.wait_until(lambda: not slurm.jobs(), 30)


def test_when_its_waiter_is_killed_a_queued_job_ends_as_soon_as_it_starts(slurm, blocked, waiter, tmp_path):
    waiter.kill()
    time.sleep(2.5)  # the patience of its jobs
    blocked()
    slurm.wait_until(lambda: not slurm.jobs(), 30)
    assert not (tmp_path / "began").exists()


def test_when_its_waiter_is_told_to_end_the_job_is_cancelled(slurm, blocked, waiter):
    waiter.send_signal(signal.SIGTERM)
    slurm.wait_until(lambda: len(slurm.jobs()) == 1, 20)
    assert waiter.wait(20) == 1


def test_the_next_waiter_looks_after_what_a_killed_one_left(slurm, blocked, waiter, executor, tmp_path):
    waiter.kill()
    (left,) = (tmp_path / "jobs").iterdir()
    time.sleep(2.5)
    executor(patience_s=2, options={"nodelist": "vn2"}, keep=0).submit(print).result()
    assert [state for _, state in states(slurm)][:1] == ["RUNNING"]
    slurm.wait_until(lambda: len(slurm.jobs()) == 1, 20)
    assert not left.exists()


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({}, "folder must be given"),
        ({"folder": "/x", "gpu": 1}, "unknown setting 'gpu'; known: account, "),
        ({"folder": "/x", "poll_s": 0}, "poll_s must be a number > 0, got 0"),
        ({"folder": "/x", "name": "a b"}, "name must be letters, digits"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, line):
    with pytest.raises(ConfigError, match=line):
        from_settings(settings)


def test_the_last_folders_of_failed_jobs_stay_and_nobody_else_s(tmp_path):
    folders = [tmp_path / f"jobs-{k}" for k in (3, 1, 2)]
    for age, folder in enumerate(folders):
        folder.mkdir()
        (folder / "7_0_log.out").touch()
        (folder / "7_submitted.pkl").touch()
        beat(folder)
        leave(folder)
        os.utime(folder, (age, age))
    (tmp_path / "jobs-mine").mkdir()
    assert job_files.abandoned(tmp_path, 60) == folders
    job_files.tidy(folders, keep=5)
    assert [file.name for file in sorted(folders[0].iterdir())] == ["7_0_log.out", "alive"]
    job_files.tidy(folders, keep=1)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["jobs-2", "jobs-mine"]


def test_making_an_executor_touches_nothing(tmp_path):
    from_settings({"folder": str(tmp_path / "jobs"), "setup": ["module load x"]}).shutdown()
    assert not (tmp_path / "jobs").exists()
