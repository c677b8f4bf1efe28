"""A SuperNode that is killed and restarted goes on with its residual: real processes."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from flower_hpc.storage import load_tree
from flower_hpc.telemetry import read_events
from processes import BIN, pids_of, rounds_begun

pytestmark = [pytest.mark.federation, pytest.mark.timeout(600)]
CODEC = "topk(0.0001)"  # a few entries a round: nearly all that was learnt is in the residual


def residual_of(path):
    tree = load_tree(path)["residual"]
    return np.concatenate([tree[name].reshape(-1) for name in sorted(tree)])


def test_a_supernode_killed_mid_run_goes_on_with_its_residual(shell, tmp_path):
    home = tmp_path / "home/lab"
    (tmp_path / "federation.yaml").write_text(
        f"name: lab\ncompression: {{up: {CODEC}}}\nsites: {{here: {{nodes: 2}}}}\n"
    )
    assert shell("flower-hpc", "up").returncode == 0
    env = os.environ | {"FLOWER_HPC_HOME": str(tmp_path / "home"), "FLWR_TELEMETRY_ENABLED": "0"}
    command = [str(BIN / "flower-hpc"), "run", "benchmark", "--name", "long", "-c", "num-rounds=26", "--json"]
    command += ["--strategy", "hybrid(fraction_evaluate=0.0)"]
    events, kept = home / "runs/long/events.jsonl", "residuals/here-0/long/residual.safetensors"
    with (tmp_path / "out").open("wb") as out, (tmp_path / "log").open("wb") as log:
        run = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=out, stderr=log)
        deadline = time.monotonic() + 200
        while rounds_begun(events)[-1:] != [4]:
            assert run.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        before = residual_of(home / "nodes/here-0" / kept)  # of three rounds
        (victim,) = [pid for pid in pids_of(home, "flower-supernode") if b"here-0" in cmdline(pid)]
        os.kill(victim, signal.SIGKILL)
        last = before
        while run.poll() is None:
            path = home / "nodes/here-0" / kept
            last = residual_of(path) if path.exists() else last
            time.sleep(0.1)
    assert run.returncode == 0, (tmp_path / "log").read_text()
    # had it been lost, what remains of the rounds since would be a part of what three had left
    assert last @ before > 0.9 * (before @ before)
    assert not np.array_equal(last, before)
    told = read_events(events)
    assert any(e["event"] == "node_lost" and e["node"] == "here-0" for e in told)
    assert [e["event"] for e in told if e.get("given_back")] in ([], ["reply_late"])
    result = json.loads((tmp_path / "out").read_text().splitlines()[-1])
    assert result["bytes_up"] < result["bytes_up_full"] / 50
    deadline = time.monotonic() + 30
    while list(home.glob("nodes/*/residuals/*/long")):  # the run is over
        assert time.monotonic() < deadline
        time.sleep(0.2)


def cmdline(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes()
