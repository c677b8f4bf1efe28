"""A federation on a real Slurm: real SuperLink, gateway and SuperNodes, TLS and node keys."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from flower_hpc.storage import load_tree
from lab import Lab, until
from processes import rounds_begun

pytestmark = [pytest.mark.federation, pytest.mark.timeout(900)]
SITE = "name: lab\nsites:\n  hpc: {{launcher: slurm, nodes: 1, {}}}\n"
EXAMPLE = Path(__file__).parents[2] / "examples/slurm/federation.yaml"


@pytest.fixture
def lab(slurm, tmp_path):
    made = []

    def make(text, name="lab"):
        (tmp_path / "federation.yaml").write_text(text)
        made.append(Lab(tmp_path, name))
        return made[-1]

    yield make
    for one in made:
        if one.home.exists():
            one("down", "lab")


def in_queue(slurm):
    return slurm.run("squeue", "-h", "-o", "%j %T").split()


@pytest.mark.parametrize(("proctrack", "rounds"), [("linuxproc", 5), ("cgroup", 2)])
def test_the_example_works_from_up_to_down(slurm_cluster, tmp_path, proctrack, rounds):
    if proctrack == "cgroup" and not os.access("/sys/fs/cgroup/freezer", os.W_OK):
        pytest.skip("needs root and writable cgroups")
    cluster = slurm_cluster(nodes=2, gpu_nodes=0, proctrack=proctrack)
    (tmp_path / "federation.yaml").write_text(EXAMPLE.read_text())
    lab = Lab(tmp_path, "slurm-example")
    try:
        lab("up")
        done = lab("run", "benchmark", "-c", f"num-rounds={rounds}", "--json", "--name", "first")
        result = json.loads(done.splitlines()[-1])
        assert len(result["rounds"]) == rounds
        assert result["rounds"][-1]["accuracy"] > (0.6 if rounds == 5 else 0.3)
        replied = {e["node"] for e in lab.events("first") if e["event"] == "reply_accepted"}
        assert len([name for name in replied if name.startswith("hpc")]) >= 2  # of the first three of four
    finally:
        lab("down")
    assert not in_queue(cluster)
    assert not list(Path("/tmp").glob("flower-hpc-scratch-*"))


STORM = """
name: lab
partitions: 8
strategy: first_k(2) | deadline(60)
compression: {up: topk(0.0001)}
sites:
  hpc: {launcher: slurm, nodes: 2, partition: preempt, mem: 500M, poll_s: 1}
  here: {nodes: 1}
"""


def residual_of(lab, node):
    tree = load_tree(lab.home / f"sites/hpc/nodes/{node}/residuals/{node}/storm/residual.safetensors")[
        "residual"
    ]
    return np.concatenate([tree[name].reshape(-1) for name in sorted(tree)])


def test_nodes_that_the_scheduler_takes_come_back_and_the_run_ends_well(slurm, lab):
    federation = lab(STORM)
    federation("up")
    before = {node["name"]: node for node in federation.status()["nodes"]}
    run = federation.start("run", "benchmark", "-c", "num-rounds=25", "--name", "storm", "--json")
    events = federation.home / "runs/storm/events.jsonl"
    until(lambda: events.exists() and len(rounds_begun(events)) >= 4)

    # a job of higher priority takes its host
    victim = federation.node("hpc-0")
    kept = residual_of(federation, "hpc-0")
    blocker = slurm.run(
        "sbatch",
        "--parsable",
        "-p",
        "cpu",
        "-w",
        victim["where"],
        "--exclusive",
        "--wrap",
        "sleep 3",
        "-o",
        "/dev/null",
    ).strip()
    lost = until(lambda: [f for f in federation.facts("hpc-0") if f["state"] == "preempted"])
    until(lambda: federation.facts("hpc-0")[-1]["state"] == "running")
    back = federation.node("hpc-0")
    assert (back["node_id"], back["state"]) == (before["hpc-0"]["node_id"], "online")
    until(lambda: _contributed(federation, "hpc-0", lost[0]["time"]))
    now = residual_of(federation, "hpc-0")
    assert now @ kept > 0.5 * (kept @ kept)  # had it been lost, little would be alike
    slurm.run("scancel", "-Q", blocker)

    # its step is killed
    job = federation.node("hpc-1")["job"]
    os.kill(pilot_of(federation, "hpc-1"), signal.SIGKILL)
    killed = time.time()
    gone = until(lambda: [f for f in federation.facts("hpc-1") if f["state"] in ("failed", "cancelled")])
    assert gone[0]["time"] > killed - 1
    until(lambda: federation.node("hpc-1")["job"] not in ("", job))

    # its host is set down
    until(lambda: federation.node("hpc-1")["state"] == "online", 180)
    then = time.time()
    slurm.run(
        "scontrol", "update", f"nodename={federation.node('hpc-1')['where']}", "state=down", "reason=test"
    )
    until(lambda: [f for f in federation.facts("hpc-1") if f["state"] == "preempted" and f["time"] > then])
    until(lambda: federation.node("hpc-1")["state"] == "online", 180)
    assert federation.node("hpc-1")["node_id"] == before["hpc-1"]["node_id"]

    # more nodes, fewer nodes, and a controller that is killed between
    federation("scale", "hpc", "4")
    os.kill(federation.status()["controller_pid"], signal.SIGKILL)
    jobs = {node.split()[0] for node in slurm.run("squeue", "-h", "-r", "-o", "%i").splitlines()}
    federation("up")
    assert federation.status()["wanted"] == 3  # what the file says
    until(lambda: len(slurm.run("squeue", "-h", "-r", "-o", "%i").split()) == 2)  # the others were ended
    federation("scale", "hpc", "4")
    federation("scale", "hpc", "1")
    left = {node.split()[0] for node in slurm.run("squeue", "-h", "-r", "-t", "R", "-o", "%i").splitlines()}
    assert left & jobs  # taken over, not started anew
    assert run.wait(400) == 0, (federation.folder / "run.log").read_text()
    told = federation.events("storm")
    assert [e["round"] for e in told if e["event"] == "round_finished"] == list(range(1, 26))
    federation("down")
    assert not in_queue(slurm)


def pilot_of(lab, node):
    """The process in the job that keeps a SuperNode: it names itself in the node's folder."""
    return int((lab.home / f"sites/hpc/nodes/{node}/owner").read_text().rpartition(".")[2])


def _contributed(lab, node, since):
    good = ("reply_accepted", "reply_late")
    return any(e["event"] in good and e["node"] == node and e["time"] > since for e in lab.events("storm"))


def test_a_time_limit_is_a_change_of_jobs(slurm, lab):
    federation = lab(SITE.format("partition: short, time: 1, mem: 500M, poll_s: 1"))
    federation("up")
    first = federation.node("hpc-0")
    until(lambda: federation.node("hpc-0")["job"] not in ("", first["job"]), 150)
    until(lambda: federation.node("hpc-0")["state"] == "online")
    second = federation.node("hpc-0")
    assert (second["node_id"], second["partition"]) == (first["node_id"], first["partition"])
    assert "asked to leave" not in (federation.home / "logs/hpc-0.log").read_text()
    # it signed off: the SuperLink did not refuse its successor, which a killed one's would be for a minute
    assert "Exit Code" not in (federation.home / "logs/hpc-0.log").read_text()


@pytest.mark.parametrize(
    ("wrong", "code", "words"),
    [
        ("partition: nowhere", 1, "invalid partition specified: nowhere"),
        ("gpus: h100:1", 1, "Requested node configuration is not available"),
        ("time: soon", 2, "sites.hpc.time: got 'soon', must be minutes, MM:SS"),
        ("partition: short, time: 90", 1, "it would wait for ever"),
        ("shared: /proc/nowhere", 1, "shared folder /proc/nowhere/lab/hpc cannot be written"),
    ],
)
def test_what_slurm_refuses_is_one_line(slurm, lab, wrong, code, words):
    said = lab(SITE.format(wrong))("up", code=code).strip()
    assert words in said.splitlines()[-1]
    assert sum(line.startswith("error: ") for line in said.splitlines()) == 1
    assert "Traceback" not in said


def test_once_starts_what_is_missing_and_leaves_nobody_to_watch(slurm, lab):
    federation = lab(SITE.format("mem: 500M, poll_s: 1") + "  here: {nodes: 1}\n")
    federation("up", "--once")
    first = federation.node("hpc-0")
    assert (federation.status()["state"], federation.status()["controller_pid"]) == ("orphaned", None)
    until(lambda: "RUNNING" in in_queue(slurm))
    slurm.run("scancel", *{line.split("_")[0] for line in slurm.run("squeue", "-h", "-o", "%i").split()})
    until(lambda: not in_queue(slurm))
    federation("up", "--once")
    until(lambda: "RUNNING" in in_queue(slurm))
    again = federation.node("hpc-0")
    assert (again["node_id"], again["job"] != first["job"]) == (first["node_id"], True)
    federation("down")
    assert not in_queue(slurm)


ALL_ELSEWHERE = """
name: lab
superlink: {launcher: slurm, mem: 900M, poll_s: 1}
sites:
  hpc: {launcher: slurm, nodes: 1, mem: 500M, poll_s: 1}
  other: {launcher: psij, executor: slurm, nodes: 1, mem_gb: 0.5, poll_s: 1, relay: true}
"""


def test_the_superlink_may_be_a_job_too_and_nodes_come_over_a_relay(slurm_cluster, tmp_path):
    cluster = slurm_cluster(nodes=2, gpu_nodes=0)  # of its own: PSI/J stumbles over others' killed jobs
    (tmp_path / "federation.yaml").write_text(ALL_ELSEWHERE)
    federation = Lab(tmp_path, "lab")
    try:
        federation("up")
        link = federation.status()["superlink"]
        assert link["where"].startswith("vn")
        cluster.run("scancel", link["job"])
        until(lambda: federation.status()["superlink"]["job"] not in ("", link["job"]))
        until(lambda: federation.status()["ready"], 180)
        listed = federation("flwr", "--", "supernode", "list", "lab", "--format", "json")
        said = json.loads(listed[listed.index("{") :])
        assert len(said["nodes"]) == 2
        federation("run", "benchmark", "-c", "num-rounds=1", "--name", "after")
        replied = {e["node"] for e in federation.events("after") if e["event"] == "reply_accepted"}
        assert replied == {"hpc-0", "other-0"}
    finally:
        federation("down")
    until(lambda: not in_queue(cluster), 30)
