"""Real nodes that are lost, replaced at another site, and come back; and a site that grows and shrinks."""

import json
import os
import signal
import time

import pytest

from flower_hpc.telemetry import read_events

pytestmark = pytest.mark.federation

# what every Python of site `a` does first: it cannot start while the file `gone` is there
BROKEN = """
import os, sys
if os.path.exists({gone!r}):
    sys.stderr.write("no such machine")
    os._exit(3)
"""
FILE = """
name: lab
max_usd_per_hour: 1
sites:
  a:
    nodes: 2
    env: {{PYTHONPATH: "{folder}"}}
    burst: {{to: b, after_queue_minutes: {minutes}, back_after_minutes: 0.05}}
  b: {{nodes: 0, usd_per_hour: 0.25}}
"""
GROWS = """
name: lab
security: insecure
sites:
  a: {nodes: 1, autoscale: {min: 1, max: 2, idle_minutes: 0.05}}
"""


def until(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.2)
    return found


@pytest.fixture
def lab(shell, tmp_path):
    """A federation's command line; JSON where there is some."""

    def run(*words):
        done = shell("flower-hpc", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1]) if "--json" in words else done.stdout

    run.folder = tmp_path / "home/lab"
    return run


def status(lab):
    return lab("status", "--json")


def online(lab):
    return sorted(node["name"] for node in status(lab)["nodes"] if node["state"] == "online")


def all_of(lab):
    return sorted(node["name"] for node in status(lab)["nodes"])


def test_lost_nodes_are_replaced_elsewhere_and_their_replacements_go_when_they_are_back(lab, tmp_path):
    gone = tmp_path / "gone"
    (tmp_path / "sitecustomize.py").write_text(BROKEN.format(gone=str(gone)))
    file = tmp_path / "federation.yaml"
    file.write_text(FILE.format(folder=tmp_path, minutes=5))
    assert lab("up", "--json")["elastic"] == {}
    assert online(lab) == ["a-0", "a-1"]
    file.write_text(FILE.format(folder=tmp_path, minutes=0.05))
    lab("up")
    assert all_of(lab) == online(lab) == ["a-0", "a-1"]

    gone.touch()
    for node in status(lab)["nodes"]:
        os.kill(node["pid"], signal.SIGKILL)
    until(lambda: online(lab) == ["b-0", "b-1"])
    now = status(lab)
    assert (now["wanted"], now["elastic"], now["usd_per_hour"], now["ready"]) == (4, {"b": 2}, 0.5, True)
    assert "b 0 -> 2: 2 of a's 2 nodes are away for 0.05 min or more" in now["decision"]
    said = lab("status")
    assert "site b: 2 more than asked for" in said
    assert "the nodes cost $0.5 an hour" in " ".join(said.split())

    # they work, and stay where the controller is killed
    pids = {node["name"]: node["pid"] for node in now["nodes"]}
    os.kill(now["controller_pid"], signal.SIGKILL)
    until(lambda: status(lab)["state"] == "orphaned")
    lab("up")
    lab("run", "benchmark", "-c", "num-rounds=1", "--name", "spill")
    replied = {
        e["node"]
        for e in read_events(lab.folder / "runs/spill/events.jsonl")
        if e["event"] == "reply_accepted"
    }
    assert replied <= {"b-0", "b-1"}
    assert replied
    after = {node["name"]: node["pid"] for node in status(lab)["nodes"]}
    assert [after[name] for name in ("b-0", "b-1")] == [pids[name] for name in ("b-0", "b-1")]

    gone.unlink()
    until(lambda: all_of(lab) == online(lab) == ["a-0", "a-1"])
    told = [(one["site"], one["before"], one["after"]) for one in lab("autoscale", "--json")]
    assert told[0] == ("b", 0, 2)
    assert sum(after - before for _, before, after in told) == 0

    # other policies meet the same record
    file.write_text(file.read_text().replace("max_usd_per_hour: 1", "max_usd_per_hour: 0.3"))
    rehearsed = lab("autoscale", "--rehearse", "--json")
    assert (rehearsed[0]["after"], rehearsed[0]["usd_after"]) == (1, 0.25)
    assert "more held back by the budget of $0.3 an hour" in rehearsed[0]["reason"]
    assert "budget" in lab("autoscale", "--rehearse")
    lab("down")
    assert not (lab.folder / "elastic/memory.json").exists()


def test_a_site_grows_for_a_run_and_shrinks_after_it(lab, tmp_path, shell):
    (tmp_path / "federation.yaml").write_text(GROWS)
    lab("up")
    refused = shell("flower-hpc", "scale", "a", "3")
    assert (refused.returncode, refused.stderr.strip()) == (
        2,
        "error: sites.a.nodes: got 3, must be from 1 to 2, as its autoscale says",
    )
    lab("run", "benchmark", "-c", "num-rounds=10", "--name", "first", "-c", "local-epochs=1")
    started = [
        e for e in read_events(lab.folder / "runs/first/events.jsonl") if e["event"] == "round_started"
    ]
    assert started[0]["online"] == 1
    assert started[-1]["online"] == 2
    until(lambda: all_of(lab) == ["a-0"])
    told = [(one["before"], one["after"], one["reason"]) for one in lab("autoscale", "--json")]
    assert told == [(1, 2, "all 1 nodes are in use"), (2, 1, "none of its nodes was of use for 0.05 min")]
