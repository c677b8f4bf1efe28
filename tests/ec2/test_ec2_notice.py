"""A real SuperNode on an instance that is taken away in the middle of its training."""

import os
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest
from safetensors.numpy import load_file

from flower_hpc.federation import Federation
from flower_hpc.federation.jobs import NodePlan, supernode_job
from flower_hpc.federation.state import HOME_ENV, StateDir
from flower_hpc.launchers import JobState
from flower_hpc.launchers.aws.request import as_tags
from flower_hpc.launchers.supernode_log import ONLINE
from flower_hpc.protocol import NODE_NAME, NODE_STATE_ENV, NUM_PARTITIONS, PARTITION_ID
from flower_hpc.telemetry import read_events
from processes import BIN

from .conftest import live
from .metadata import NOTICE, imds, notice

pytestmark = pytest.mark.federation
FILE = """
name: lab
partitions: 2
security: {mode: insecure, network: host, shared_host: accept}
strategy: first_k(1)
sites:
  here: {nodes: 1}
"""
STEPS = 1_000_000
PROJECT = """
[project]
name = "stepping"
version = "1.0.0"
license = "Apache-2.0"
dependencies = []
[tool.flwr.app]
publisher = "tests"
[tool.flwr.app.components]
serverapp = "stepping:server"
clientapp = "stepping:client"
[tool.flwr.app.config]
strategy = ""
"""
APP = f"""
import os, time
from pathlib import Path
import numpy as np
from flwr.app import Message, MetricRecord, RecordDict
from flwr.serverapp import ServerApp
from flower_hpc.client import KeepBudget, ProfiledApp, budget_of
from flower_hpc.protocol import NODE_STATE_ENV
from flower_hpc.records import to_record, to_weights
from flower_hpc.strategies import configured
server = ServerApp()
client = ProfiledApp(mods=[KeepBudget()])

@server.main()
def main(grid, context):
    configured(context).start(grid, initial_arrays=to_record({{"w": np.zeros(3)}}), num_rounds=1)

@client.train()
def train(msg, context):
    budget, done = budget_of(msg), 0
    w = to_weights(msg.content["arrays"])["w"]
    while done < {STEPS} and not budget.spent():
        time.sleep(0.05)
        w, done = w + 1, done + 1
        Path(os.environ[NODE_STATE_ENV], "steps").write_text(str(done))
    metrics = MetricRecord({{"num-examples": done}})
    return Message(RecordDict({{"arrays": to_record({{"w": w}}), "metrics": metrics}}), reply_to=msg)
"""


def until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


@pytest.fixture
def lab(tmp_path, monkeypatch):
    monkeypatch.setenv(HOME_ENV, str(tmp_path / "home"))
    (tmp_path / "federation.yaml").write_text(FILE)
    federation = Federation.load(tmp_path / "federation.yaml")
    try:
        assert federation.up().ready
        yield federation
    finally:
        federation.down()


@pytest.fixture
def app(tmp_path):
    """A Flower app that adds 1 in each step, for hours, and notes how many it did."""
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "stepping.py").write_text(APP)
    return folder


@pytest.fixture
def at_work(lab, make, folder, tmp_path):
    """The spec of a node of a site without a shared disk, with this machine's folders in place of /etc."""
    address = lab.status().superlink.address
    config = {NODE_NAME: "cloud-0", PARTITION_ID: 1, NUM_PARTITIONS: 2}
    plan = NodePlan(
        name="cloud-0", site="cloud", partition=1, link=f"tcp:{address}", tls=False, config=config
    )
    spec = supernode_job(plan, StateDir(lab.state_dir))
    own = tmp_path / "var" / "nodes" / "cloud-0"
    (folder / "door").write_text(f"tcp:{address}")
    env = dict(spec.env) | {NODE_STATE_ENV: str(own)}
    return replace(spec, cwd=own, log=tmp_path / "var" / "cloud-0.log", env=env)


def test_a_spot_notice_brings_partial_work_in_before_the_end(lab, make, at_work, ec2, app, tmp_path):
    launcher = make()
    ticket = launcher.submit(at_work)
    launcher.step()
    launcher.step()
    assert launcher.status(ticket).state is JobState.RUNNING
    (instance,) = live(ec2)
    with imds(as_tags(instance)) as service, ExitStack() as stack:
        words = ["--owner", launcher.place.whose.owner, "--root", str(tmp_path / "etc"), "--notice-s", "0.5"]
        command = [sys.executable, "-m", "flower_hpc.launchers.aws.node", *words]
        node = stack.enter_context(
            started(command, tmp_path / "node.log", os.environ | {"FLOWER_HPC_METADATA": service.url})
        )
        until(lambda: ONLINE.search((tmp_path / "node.log").read_text()))
        command = [str(BIN / "flower-hpc"), "run", str(app), "--name", "spot"]
        run = stack.enter_context(started(command, tmp_path / "run.log"))
        steps = at_work.cwd / "steps"
        until(lambda: run.poll() is not None or (steps.exists() and int(steps.read_text() or 0) >= 20))
        assert run.poll() is None, (tmp_path / "run.log").read_text()
        service.paths[NOTICE], end = notice(60)
        assert run.wait(60) == 0, (tmp_path / "run.log").read_text()
        events = read_events(lab.state_dir / "runs" / "spot" / "events.jsonl")
        (reply,) = (e for e in events if e["event"] == "reply_accepted")
        assert reply["time"] < end
        done = int(steps.read_text())
        assert 20 <= done < STEPS
        assert reply["examples"] == done
        # the model is what so many steps make of it
        (w,) = load_file(lab.state_dir / "runs" / "spot" / "model.safetensors").values()
        assert w.tolist() == [done] * 3
        until(
            lambda: "spot notice: terminate" in (tmp_path / "node.log").read_text()
        )  # the pilot's last word
        assert node.poll() is None  # it does not sign on again
        assert (tmp_path / "node.log").read_text().count("SuperNode ID") == 1


@contextmanager
def started(command, log, env=None):
    """A process that is gone afterwards."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=log.parent, env=env, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
