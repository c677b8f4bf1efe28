"""A real Slurm queue that does not move: nodes elsewhere within the policy's time, and back."""

import json

import pytest

from flower_hpc.telemetry import read_events
from slurm.test_slurm_federation import Lab, in_queue, until

pytestmark = [pytest.mark.federation, pytest.mark.timeout(600)]
AFTER_S = 6.0
FILE = """
name: lab
sites:
  hpc:
    launcher: slurm
    nodes: 2
    mem: 500M
    poll_s: 1
    burst: {to: here, after_queue_minutes: 0.1, back_after_minutes: 0.05}
  here: {nodes: 0}
"""


def nodes(lab, state):
    return sorted(node["name"] for node in lab.status()["nodes"] if node["state"] == state)


def decisions(lab):
    return json.loads(lab("autoscale", "--json").splitlines()[-1])


def seen(lab):
    return [e for e in read_events(lab.home / "elastic/events.jsonl") if e["event"] == "seen"]


def test_drained_lab_nodes_are_replaced_within_the_policys_time_and_come_back(slurm_cluster, tmp_path):
    cluster = slurm_cluster(nodes=2, gpu_nodes=0)
    for node in cluster.knobs.names:
        cluster.run("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    (tmp_path / "federation.yaml").write_text(FILE)
    lab = Lab(tmp_path, "lab")
    try:
        lab("up")  # does not wait for the queue: as many nodes as asked for are online
        assert (nodes(lab, "online"), nodes(lab, "queued")) == (["here-0", "here-1"], ["hpc-0", "hpc-1"])
        first = decisions(lab)[0]
        assert (first["site"], first["before"], first["after"]) == ("here", 0, 2)
        at_that = next(one["seen"] for one in reversed(seen(lab)) if one["time"] <= first["time"])
        waits = [at_that["time"] - since for since in at_that["sites"]["hpc"]["away"]]
        assert min(waits) >= AFTER_S
        assert "queued" in first["reason"]

        lab("run", "benchmark", "-c", "num-rounds=2", "--name", "spill")
        replied = {e["node"] for e in lab.events("spill") if e["event"] == "reply_accepted"}
        assert replied == {"here-0", "here-1"}

        for node in cluster.knobs.names:
            cluster.run("scontrol", "update", f"nodename={node}", "state=resume")
        until(lambda: nodes(lab, "online") == ["hpc-0", "hpc-1"] and len(lab.status()["nodes"]) == 2)
        assert sum(one["after"] - one["before"] for one in decisions(lab)) == 0
        lab("run", "benchmark", "-c", "num-rounds=1", "--name", "home")
        replied = {e["node"] for e in lab.events("home") if e["event"] == "reply_accepted"}
        assert replied == {"hpc-0", "hpc-1"}
    finally:
        lab("down")
    until(lambda: not in_queue(cluster), 30)
