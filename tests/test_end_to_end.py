"""What the README promises, with real SuperLinks and SuperNodes, as a user would run it."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from flower_hpc import apps
from flower_hpc.telemetry import read_events
from processes import BIN, left_of, pids_of, rounds_begun

pytestmark = [pytest.mark.federation, pytest.mark.timeout(600)]


def test_the_demo_learns_without_its_slowest_node_and_leaves_nothing(shell, tmp_path):
    done = shell("flower-hpc", "demo", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["accuracy"] >= 0.8
    assert len(result["rounds"]) == 8
    assert sum(r["late"] for r in result["rounds"]) >= 1
    assert {name for r in result["rounds"] for name in r["late_nodes"] + r["cut_nodes"]} == {"here-3"}
    assert all(r["bytes_up"] > 0 and r["seconds"] > 0 for r in result["rounds"])
    folder = Path(result["folder"])
    assert {"events.jsonl", "result.json", "model.safetensors"} <= {p.name for p in folder.iterdir()}
    assert all(np.isfinite(x).all() for x in load_file(folder / "model.safetensors").values())
    assert not left_of(tmp_path)


def test_one_federation_serves_our_runs_and_flowers_own(shell, tmp_path):
    (tmp_path / "federation.yaml").write_text("name: lab\nsites: {here: {nodes: 2}}\n")
    done = shell("flower-hpc", "up", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["online"] == 2

    done = shell(
        "flower-hpc", "run", "benchmark", "-c", "num-rounds=2", "--name", "first", "--json",
        "--strategy", "first_k(2) | deadline(60)",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["run"], len(result["rounds"])) == ("first", 2)
    assert result["accuracy"] > 0.5
    state = tmp_path / "home" / "lab"
    assert Path(result["folder"]) == state / "runs" / "first"

    again = shell("flower-hpc", "run", "benchmark", "--name", "first")
    assert (again.returncode, len(again.stderr.splitlines())) == (2, 1)

    # plain `flwr run`, with Flower's own FedAvg
    done = shell(
        "flower-hpc", "flwr", "--", "run", apps.path("benchmark"), "lab", "--stream",
        "--run-config", 'num-rounds=1 strategy="flower.FedAvg()"',
    )  # fmt: skip
    assert "Strategy execution finished" in done.stdout + done.stderr

    status = json.loads(shell("flower-hpc", "status", "--json").stdout)
    assert [n["state"] for n in status["nodes"]] == ["online", "online"]
    assert "Received successfully" in shell("flower-hpc", "logs", "here-0", "-n", "0").stdout
    assert json.loads(shell("flower-hpc", "down", "--json").stdout)["was_up"]
    assert not left_of(tmp_path)


def test_a_wrong_value_that_only_the_server_sees_is_one_line(shell, tmp_path):
    # natural partitions of a task without data: known when the ServerApp looks for it
    done = shell(
        "flower-hpc", "run", "benchmark", "--nodes", "1", "-c", "task=shakespeare", "-c", "num-rounds=1",
        FLOWER_HPC_DATA="", XDG_CACHE_HOME=str(tmp_path / "cache"),
    )  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "shakespeare" in done.stderr.splitlines()[-1]


def test_apps_that_cannot_be_loaded_and_runs_that_are_interrupted_are_told(shell, tmp_path):
    (tmp_path / "federation.yaml").write_text("name: lab\nsites: {here: {nodes: 1}}\n")
    shutil.copytree(Path(__file__).parent / "mpi" / "app", tmp_path / "app")
    server = tmp_path / "app/tried/server.py"
    sound = server.read_text()
    server.write_text(sound + "\nraise ValueError('as asked')\n")
    assert shell("flower-hpc", "up").returncode == 0
    done = shell("flower-hpc", "run", "app", "--name", "bad")
    line = f"tried/server.py:{len(sound.splitlines()) + 2}: ValueError: as asked (log: "
    assert (done.returncode, line in done.stderr.splitlines()[-1]) == (2, True), done.stderr
    log = tmp_path / "home/lab/runs/bad/server.log"
    assert "Traceback" in log.read_text()

    server.write_text(sound)
    env = os.environ | {"FLOWER_HPC_HOME": str(tmp_path / "home"), "FLWR_TELEMETRY_ENABLED": "0"}
    command = [str(BIN / "flower-hpc"), "run", "app", "--name", "long", "-c", "num-rounds=500"]
    run = subprocess.Popen(
        command, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    events, deadline = tmp_path / "home/lab/runs/long/events.jsonl", time.monotonic() + 120
    while len(rounds_begun(events)) < 2:
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    run.terminate()
    assert run.wait(60) == 128 + signal.SIGTERM
    while (last := list(read_events(events))[-1])["event"] != "run_failed":
        assert time.monotonic() < deadline + 60
        time.sleep(0.5)
    assert (last["error"], last["exit_code"]) == ("interrupted by SIGTERM", 143)


def test_a_run_goes_on_after_kill_9_of_superlink_serverapp_and_command(shell, tmp_path):
    config = ["-c", "num-rounds=6", "--strategy", "hybrid", "--set", "fraction_evaluate=0.0"]
    (tmp_path / "federation.yaml").write_text("name: lab\nsites: {here: {nodes: 2}}\n")
    assert shell("flower-hpc", "up").returncode == 0
    env = os.environ | {"FLOWER_HPC_HOME": str(tmp_path / "home"), "FLWR_TELEMETRY_ENABLED": "0"}
    command = [str(BIN / "flower-hpc"), "run", "benchmark", "--name", "long", *config]
    events = tmp_path / "home/lab/runs/long/events.jsonl"
    with (tmp_path / "first.log").open("wb") as log:
        first = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=log, stderr=log)
        deadline = time.monotonic() + 200
        while rounds_begun(events)[-1:] != [3]:
            assert first.poll() is None, (tmp_path / "first.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        refused = shell("flower-hpc", "run", "--resume", "long")
        assert (refused.returncode, refused.stderr.strip()) == (
            2,
            "error: --resume: run 'long' is still running",
        )
        first.kill()
        first.wait()
    home = tmp_path / "home/lab"
    victims = pids_of(home, "flower-superlink") + pids_of(home, "flwr-serverapp")
    assert len(victims) == 2
    for pid in victims:
        os.kill(pid, signal.SIGKILL)

    done = shell("flower-hpc", "run", "--resume", "long", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert [r["round"] for r in result["rounds"]] == [1, 2, 3, 4, 5, 6]
    assert result["accuracy"] >= 0.85
    (resumed,) = [e for e in read_events(events) if e["event"] == "run_resumed"]
    # the round under way is begun anew, what was learnt before is not learnt again
    first_again = resumed["round"] + 1
    assert rounds_begun(events)[-(6 - resumed["round"]) :] == list(range(first_again, 7))
    assert resumed["round"] in (2, 3)
    assert [e["round"] for e in read_events(events) if e["event"] == "aggregated"] == [1, 2, 3, 4, 5, 6]
