"""Warm clients on real SuperLinks and SuperNodes: what a run gets is what it gets without them."""

import json
import os
from pathlib import Path

import pytest

from doors import children
from lab import Lab, until
from processes import left_of

pytestmark = [pytest.mark.federation, pytest.mark.timeout(600)]
FILE = """
name: lab
partitions: 3
sites:
  warm: {nodes: 1}
  cold: {nodes: 1, warm: false}
  some: {nodes: 1, warm: [json, wave, no_such_package]}
"""
PROJECT = """
[project]
name = "telling"
version = "1.0.0"
license = "Apache-2.0"
dependencies = []
[tool.flwr.app]
publisher = "tests"
[tool.flwr.app.components]
serverapp = "telling:server"
clientapp = "telling:client"
[tool.flwr.app.config]
strategy = ""
num-rounds = 3
"""
APP = """
import os, json, random, sys
from pathlib import Path
import numpy as np
import wave
import datasets
from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flower_hpc.records import to_record, to_weights
from flwr.serverapp.strategy import FedAvg
server = ServerApp()
client = ClientApp()
calls = []

@server.main()
def main(grid, context):
    FedAvg(fraction_evaluate=0.0).start(
        grid, initial_arrays=to_record({"w": np.zeros(3)}), num_rounds=3
    )

@client.train()
def train(msg, context):
    calls.append(1)
    parent = Path(f"/proc/{os.getppid()}/cmdline").read_text().split(chr(0))
    told = {
        "pid": os.getpid(), "calls": len(calls), "datasets": datasets.NAME,
        "name": context.node_config["name"],
        "parent": "server" if "flower_hpc.launchers.warm.server" in parent else Path(parent[1]).name,
        "draw": random.random() + np.random.rand(), "argument": Path(sys.argv[0]).name,
        "cwd": os.getcwd(), "told": context.state["told"]["n"] if "told" in context.state else 0,
    }
    context.state["told"] = MetricRecord({"n": told["told"] + 1})
    with open(Path(os.environ["FLOWER_HPC_STATE"], "told.jsonl"), "a") as file:
        print(json.dumps(told), file=file, flush=True)
    w = to_weights(msg.content["arrays"])["w"]
    metrics = MetricRecord({"num-examples": 1})
    return Message(RecordDict({"arrays": to_record({"w": w + 1}), "metrics": metrics}), reply_to=msg)
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("warm")
    (folder / "federation.yaml").write_text(FILE)
    (folder / "app").mkdir()
    (folder / "app/pyproject.toml").write_text(PROJECT)
    (folder / "app/telling.py").write_text(APP)
    (folder / "app/datasets.py").write_text("NAME = 'own'")  # one of the packages that are imported ahead
    lab = Lab(folder, "lab")
    try:
        lab("up")
        yield lab
    finally:
        lab("down")
    assert not left_of(folder)


@pytest.fixture(scope="module")
def told(lab):
    """What the nodes told of their messages, in order."""
    lab("run", "app", "--name", "first", "--json")
    found = [json.loads(line) for line in (lab.home / "told.jsonl").read_text().splitlines()]
    return {name: [each for each in found if each["name"] == name] for name in ("warm-0", "cold-0", "some-0")}


def test_every_message_has_a_process_of_its_own(told):
    for name in told:
        assert len({each["pid"] for each in told[name]}) == 3
        assert [each["calls"] for each in told[name]] == [1, 1, 1]
        assert len({each["draw"] for each in told[name]}) == 3


def test_what_an_app_sees_is_the_same(told):
    for name in told:
        assert [each["told"] for each in told[name]] == [0, 1, 2]
        assert {each["datasets"] for each in told[name]} == {"own"}
        assert {each["argument"] for each in told[name]} == {"flwr-clientapp"}
        assert {Path(each["cwd"]).name for each in told[name]} == {name}


def test_a_site_decides_who_starts_them(told):
    parents = {name: {each["parent"] for each in told[name]} for name in told}
    assert parents == {"warm-0": {"server"}, "cold-0": {"flower-superexec"}, "some-0": {"server"}}


def test_a_node_whose_server_is_killed_goes_on_and_gets_another(lab, told):
    keeper, killed = of_node(lab, "warm-0")
    os.kill(killed, 9)
    until(lambda: set(of_node(lab, "warm-0")) not in ({keeper}, {keeper, killed}))  # within a minute
    assert parents(lab, "second") == {"warm-0": "server", "cold-0": "flower-superexec", "some-0": "server"}


def test_a_node_without_a_server_goes_on_and_says_so(lab, told):
    keeper, _ = of_node(lab, "warm-0")
    os.kill(keeper, 9)
    until(lambda: not of_node(lab, "warm-0"))  # the one ends with the other
    assert parents(lab, "third")["warm-0"] == "flower-superexec"
    log = lab("logs", "warm-0")
    assert "warm clients: the server is gone: Flower's own command answers" in log


def test_nothing_is_left_of_a_node_that_is_stopped(lab, told):
    assert pids(lab.folder, "warm.server")
    lab("scale", "some", "0")
    until(lambda: not [pid for pid in pids(lab.folder, "warm.server") if b"some-0" in cwd(pid)])


def parents(lab, name):
    """Who started each node's last message of a new run."""
    before = len((lab.home / "told.jsonl").read_text().splitlines())
    lab("run", "app", "--name", name, "--json")
    lines = (lab.home / "told.jsonl").read_text().splitlines()[before:]
    return {each["name"]: each["parent"] for each in map(json.loads, lines)}


def of_node(lab, name):
    """The process that starts a node's server, and that one, its child."""
    found = [pid for pid in pids(lab.folder, "warm.server") if name.encode() in cwd(pid)]
    return sorted(found, key=lambda pid: any(pid in children(other) for other in found))


def pids(folder, word):
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in words and word.encode() in words.partition(b"PATH=")[0]:
            found.append(int(entry.name))
    return found


def cwd(pid):
    try:
        return os.readlink(f"/proc/{pid}/cwd").encode()
    except OSError:  # it has just ended
        return b""
