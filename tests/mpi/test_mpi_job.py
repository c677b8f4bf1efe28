"""``mpiexec flower-hpc mpi``: apps run unchanged, and what goes wrong is told."""

import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from mpi.conftest import APP
from processes import BIN

MEAN = 2.5  # what four nodes add in a round, in the mean


def test_an_app_runs_unchanged(mpi):
    out, _ = mpi.run(3, APP, "--nodes", 4, "--name", "one", "--json")
    result = json.loads(out.splitlines()[-1])
    assert [row["replied"] for row in result["rounds"]] == [4, 4, 4]
    assert (mpi.model["w"], mpi.model["same"]) == (1 + 3 * MEAN, True)


@pytest.mark.parametrize("strategy", ["flower.FedAvg(fraction_evaluate=0.0)", "fedbuff(k=2)", "first_k(1)"])
def test_any_strategy(mpich, strategy):
    mpich.run(3, APP, "--nodes", 4, "--strategy", strategy)
    assert mpich.model["w"] > 1


@pytest.mark.parametrize("size", [1, 4096, 4097, 1_000_000])
def test_models_of_any_size_arrive_whole(mpi, size):
    mpi.run(4, APP, "--nodes", 7, "-c", f"size={size}", "-c", "num-rounds=2")
    assert (mpi.model["w"], mpi.model["same"]) == (1 + 2 * 4.0, True)


def test_ranks_of_a_host_share_its_cores(mpich):
    mpich.run(3, APP, OMP_NUM_THREADS="")
    assert mpich.model["metrics"]["threads"] == max(1, len(os.sched_getaffinity(0)) // 3)
    mpich.run(3, APP, OMP_NUM_THREADS="2")
    assert mpich.model["metrics"]["threads"] == 2


def test_what_nodes_keep_stays_with_them_and_their_rank_is_warm(mpich):
    mpich.run(3, APP, "--nodes", 5)
    assert mpich.model["metrics"]["messages"] == 3
    assert mpich.model["metrics"]["calls"] > 3  # of one process: a rank hosts several


def test_a_node_that_raises_is_an_error_reply_and_the_round_goes_on(mpi):
    mpi.run(3, APP, "--nodes", 4, "-c", "raises=3", "--name", "raised")
    failed = [e for e in mpi.events("raised") if e["event"] == "reply_failed"]
    assert len(failed) == 3
    assert "node 3, as asked" in failed[0]["reason"]
    assert mpi.model["w"] == 1 + 3 * 2.0  # of the other three


@pytest.mark.parametrize("how", ["unreadable", "unsendable"])
def test_a_reply_that_cannot_travel_is_an_error_and_the_round_goes_on(mpich, how):
    mpich.run(3, APP, "--nodes", 4, "-c", f"{how}=3", "--name", "odd")
    failed = [e for e in mpich.events("odd") if e["event"] == "reply_failed"]
    assert [e["node"] for e in failed] == ["node-3"] * 3
    assert mpich.model["w"] == 1 + 3 * 2.0


def test_a_round_is_cut_and_late_updates_are_folded_in(mpich):
    config = ("-c", "slow=0", "-c", "slow-s=3", "-c", "num-rounds=16", "-c", "sleep-s=0.3")
    mpich.run(4, APP, "--nodes", 3, "--strategy", "first_k(2)", "--name", "cut", *config)
    events = mpich.events("cut")
    assert any(e["event"] == "reply_late" for e in events)
    assert ["node-0"] in [e["waiting"] for e in events if e["event"] == "cut"]
    sent = [e["node"] for e in events if e["event"] == "sent" and e["kind"] == "train"]
    assert sent.count("node-0") < sent.count("node-1")  # never while it is busy


def test_flowers_own_strategy_gives_a_slow_node_up_and_goes_on(mpich):
    config = (
        "-c",
        "slow=0",
        "-c",
        "slow-s=9",
        "-c",
        "timeout=6.0",
        "-c",
        "size=20000000",
        "-c",
        "num-rounds=3",
    )
    mpich.run(4, APP, "--nodes", 3, "--strategy", "flower.FedAvg(fraction_evaluate=0.0)", *config)
    # the slow node is asked again in each round, and never in time: its replies of 80 MB keep nobody out
    assert mpich.model["w"] == 1 + 3 * 2.5


@pytest.mark.parametrize("error", ["CancelledError", "SystemExit", "KeyboardInterrupt"])
def test_whatever_an_app_raises_is_an_error_of_its_node(mpich, error):
    mpich.run(3, APP, "--nodes", 4, "-c", "raises=3", "-c", f"raises-what={error}", "--name", "raised")
    failed = [e["node"] for e in mpich.events("raised") if e["event"] == "reply_failed"]
    assert failed == ["node-3"] * 3


def test_a_node_whose_folder_cannot_be_made_is_an_error_of_its_own(mpich):
    mpich.run(3, APP, "--nodes", 2, "-c", "spoils-folder=1", "--name", "spoilt")
    events = [e for e in mpich.events("spoilt") if e["event"] == "reply_failed"]
    failed = [e["node"] for e in events if e["kind"] == "train"]
    assert failed == ["node-1"] * 2  # it answers once


@pytest.mark.parametrize(("how", "words"), [("SIGKILL", "signal SIGKILL"), ("7", "exit code 7")])
def test_a_rank_that_dies_is_told_and_resume_finishes(mpi, how, words):
    dying = ("-c", "dies=2", "-c", "dies-in=3", "-c", f"dies-of='{how}'", "-c", "num-rounds=5")
    _, err = mpi.run(3, APP, "--nodes", 4, "--name", "died", *dying, code=None)
    [line] = [line for line in err.splitlines() if "error: rank" in line]
    assert "rank 1 on " in line
    assert words in line
    assert "node-2" in line
    assert "--resume died" in line
    out, _ = mpi.run(3, "--resume", "died", "-c", "dies=-1", "--json")
    assert json.loads(out.splitlines()[-1])["run"] == "died"
    assert (mpi.model["w"], mpi.model["same"]) == (1 + 5 * MEAN, True)
    resumed = [e for e in mpi.events("died") if e["event"] == "run_resumed"]
    assert [e["round"] for e in resumed] == [2]


def by_terminal(job):
    os.killpg(job.pid, signal.SIGINT)


def by_batch_system(job):
    for process in psutil.Process(job.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()


@pytest.mark.parametrize("interrupt", [by_terminal, by_batch_system])
def test_a_job_that_is_interrupted_ends_at_once_and_resume_finishes(mpi, interrupt):
    config = ("-c", "num-rounds=500", "-c", "sleep-s=0.1")
    job = mpi.start(3, BIN / "flower-hpc", "mpi", APP, "--nodes", 3, "--name", "long", *config)
    try:
        mpi.wait_for("long", "aggregated", job)
        interrupt(job)
        _, err = job.communicate(timeout=30)
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
            job.wait()
    assert job.returncode != 0
    assert "Traceback" not in err
    told = {e["error"] for e in mpi.events("long") if e["event"] == "run_failed"}
    # of a terminal's signal mpiexec makes what it likes
    names = ["SIGTERM", "SIGINT"] if interrupt is by_terminal else ["SIGTERM"]
    assert told <= {f"interrupted by {name}" for name in names}
    assert told or (mpi.name, interrupt) == ("openmpi", by_terminal)
    # Open MPI's mpiexec kills its ranks where a terminal interrupts it
    assert err.count("--resume long") == (mpi.name != "openmpi" or interrupt is not by_terminal)
    done = sum(e["event"] == "aggregated" for e in mpi.events("long"))
    mpi.run(3, "--resume", "long", "-c", f"num-rounds={done + 2}")
    assert (mpi.model["w"], mpi.model["same"]) == (1 + (done + 2) * 2.0, True)


def test_a_rank_that_works_on_when_the_run_is_over_is_ended(mpich):
    config = ("-c", "slow=0", "-c", "slow-s=100", "-c", "deaf=true")
    out, err = mpich.run(4, APP, "--nodes", 3, "--strategy", "first_k(2)", "--json", *config, code=None)
    assert "rank 1 still worked after 30 s, and is ended" in err
    # mpiexec has the last word, and is not content
    [result] = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    assert len(result["rounds"]) == 3


@pytest.mark.parametrize("what", ["thread", "child", "program"])
def test_what_an_app_leaves_running_ends_with_its_rank(mpi, what):
    config = ("-c", "leaves-behind=0", "-c", f"leaves-what='{what}'", "-c", "num-rounds=2")
    began = {folder.name for folder in Path(tempfile.gettempdir()).glob("flower-hpc-rank-*")}
    mpi.run(3, APP, "--name", "left", *config, timeout=60)
    left = [int(path.name.removeprefix("left-")) for path in (mpi.state / "runs" / "left").glob("left-*")]
    assert len(left) == (0 if what == "thread" else 4)
    assert not [pid for pid in left if psutil.pid_exists(pid)]
    assert {folder.name for folder in Path(tempfile.gettempdir()).glob("flower-hpc-rank-*")} <= began


def test_a_signal_while_the_last_ranks_are_awaited_ends_the_job(mpich):
    config = (
        "-c",
        "slow=0",
        "-c",
        "slow-s=100",
        "-c",
        "deaf=true",
        "--strategy",
        "first_k(2)",
        "--name",
        "late",
    )
    job = mpich.start(4, BIN / "flower-hpc", "mpi", APP, "--nodes", 3, *config)
    try:
        mpich.wait_for("late", "run_finished", job)
        time.sleep(1)
        by_batch_system(job)
        job.communicate(timeout=25)
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
            job.wait()
    assert job.returncode != 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere",), "app must be a folder of a Flower App"),
        ((APP, "--set", "k=3"), "hybrid has no parameter 'k'"),
        ((APP, "-c", "colour=red"), "run config: tried has no key 'colour'"),
        ((APP, "--strategy", "fedwrong"), "fedwrong"),
        ((), "give an APP to run"),
        (("--resume", "nothing"), "--resume: no run 'nothing'"),
        ((APP, "--nodes", "0"), "nodes"),
        ((APP, "--nodes", "1000000"), "1000000 is not in the range 1<=x<=100000"),
    ],
)
def test_bad_input_is_one_line(mpich, words, said):
    _, err = mpich.run(3, *words, code=2)
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1, err
    assert said in lines[0]


def broken(folder, text, **modules):
    """The app with another project file, and more modules."""
    (folder / "broken" / "tried").mkdir(parents=True)
    for path in (APP / "tried").glob("*.py"):
        (folder / "broken" / "tried" / path.name).write_text(path.read_text())
    for name, code in modules.items():
        (folder / "broken" / "tried" / f"{name}.py").write_text(code)
    (folder / "broken" / "pyproject.toml").write_text(text)
    return folder / "broken"


@pytest.mark.parametrize("code", ["import nowhere", "raise ValueError('long ' * 20_000)"])
def test_an_app_that_cannot_be_loaded_is_told(mpi, code):
    text = (APP / "pyproject.toml").read_text().replace("tried.client:app", "tried.other:app")
    _, err = mpi.run(4, broken(mpi.folder, text, other=code), code=1)
    assert "cannot load the ClientApp: " in err
    assert ("No module named 'nowhere'" in err) == (code == "import nowhere")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("\n\nraise ValueError('as asked')", "tried/other.py:3: ValueError: as asked (log: "),
        ("app = (", "error: tried/other.py:1: SyntaxError: '(' was never closed"),
    ],
)
def test_a_serverapp_that_cannot_be_loaded_is_told_with_its_place(mpich, code, words):
    text = (APP / "pyproject.toml").read_text().replace("tried.server:app", "tried.other:app")
    _, err = mpich.run(3, broken(mpich.folder, text, other=code), "--name", "bad", code=2)
    assert words in err.splitlines()[-1]
    assert "Traceback" not in err
    if "log: " in words:
        assert "Traceback" in (mpich.state / "runs" / "bad" / "server.log").read_text()


def test_a_run_that_has_lost_its_checkpoints_is_refused(mpich):
    mpich.run(3, APP, "--nodes", 2, "--name", "lost")
    for path in (mpich.state / "runs" / "lost" / "checkpoints").iterdir():
        path.write_bytes(b"damaged")
    _, err = mpich.run(3, "--resume", "lost", "-c", "num-rounds=4", code=2)
    assert "resume: every checkpoint in " in err.splitlines()[-1]
    shutil.rmtree(mpich.state / "runs" / "lost" / "checkpoints")
    _, err = mpich.run(3, "--resume", "lost", "-c", "num-rounds=4", code=2)
    assert len(err.splitlines()) == 1
    assert "are gone, the last was of round 3" in err


def test_a_run_in_which_nothing_was_aggregated_fails(mpich):
    config = ("--strategy", "scaffold", "-c", "num-rounds=2")
    _, err = mpich.run(3, APP, "--nodes", 2, *config, code=1)
    assert "no round aggregated anything, the model is untrained: 4 replies were refused" in err


def test_an_app_without_a_clientapp_is_told(mpich):
    text = (APP / "pyproject.toml").read_text().replace("clientapp =", "other =")
    _, err = mpich.run(3, broken(mpich.folder, text), code=2)
    assert err == "error: app tried: [tool.flwr.app.components] names no clientapp\n"


@pytest.mark.parametrize("error", ["RuntimeError", "SystemExit"])
def test_a_serverapp_that_raises_ends_the_job(mpich, error):
    _, err = mpich.run(3, APP, "-c", f"server-error='{error}'", code=1)
    assert f"failed: {error}: as asked" in err
    assert "interrupted" not in err


def test_alone_it_says_how_it_is_started(mpich, shell):
    done = shell("flower-hpc", "mpi", APP)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "mpiexec" in done.stderr


def test_one_rank_is_too_few(mpi):
    _, err = mpi.run(1, APP, code=2)
    assert "at least one client" in err
