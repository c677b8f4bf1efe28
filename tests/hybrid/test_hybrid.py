"""The hybrid example: one SuperLink, a Slurm site, a Kubernetes site, nodes of this machine; TLS and keys."""

import json
from pathlib import Path

import pytest
import yaml

from lab import Lab, until
from processes import left_of, rounds_begun

pytestmark = [pytest.mark.federation, pytest.mark.timeout(900)]
EXAMPLE = Path(__file__).parents[2] / "examples/hybrid/federation.yaml"
ROUNDS = 6


def federation_of(folder, kube, slurm, **sites):
    """The example, with this machine's names in it."""
    told = yaml.safe_load(EXAMPLE.read_text())
    told["gateway"] = {"address": "127.0.0.1"}
    told["sites"]["hpc"] |= {"mem": "500M", "time": 30, "poll_s": 1}
    told["sites"]["cloud"] |= {"image": "flower-hpc:test", "namespace": kube.namespace, "grace_s": 20}
    for name, changes in sites.items():
        told["sites"][name] |= changes
    (folder / "federation.yaml").write_text(yaml.safe_dump(told))
    return Lab(folder, "hybrid", KUBECONFIG=str(kube.kubeconfig), SLURM_CONF=slurm.env["SLURM_CONF"])


def pods(kube):
    found = kube.core.list_namespaced_pod(kube.namespace, label_selector="flower-hpc/federation=hybrid")
    return sorted(one.metadata.name for one in found.items)


def accuracy(lab, run):
    measured = [e for e in lab.events(run) if e["event"] == "evaluated" and e["round"] == ROUNDS]
    return measured[-1]["metrics"]["accuracy"]


def contributed(lab, run):
    return {e["node"] for e in lab.events(run) if e["event"] in ("reply_accepted", "reply_late")}


def in_queue(slurm):
    return slurm.run("squeue", "-h", "-o", "%i").split()


def test_a_run_outlives_a_preemption_an_eviction_and_a_change_of_size(slurm_cluster, kube, tmp_path):
    slurm = slurm_cluster()
    lab = federation_of(tmp_path, kube, slurm, hpc={"partition": "preempt"})
    nodes = {"hpc-0", "hpc-1", "cloud-0", "cloud-1", "here-0"}
    try:
        lab("up")
        assert {node["name"] for node in lab.status()["nodes"]} == nodes
        settings = ("-c", f"num-rounds={ROUNDS}", "-c", "local-epochs=10")
        lab("run", "benchmark", *settings, "--name", "calm")
        assert contributed(lab, "calm") == nodes

        run = lab.start("run", "benchmark", *settings, "--name", "storm", "--json")
        log = lab.home / "runs/storm/events.jsonl"
        until(lambda: log.exists() and len(rounds_begun(log)) >= 2)
        host = lab.node("hpc-0")["where"]
        words = ("--parsable", "-p", "cpu", "-w", host, "--exclusive", "-o", "/dev/null", "--wrap", "sleep 3")
        slurm.run("sbatch", *words)
        victim = next(name for name in pods(kube) if name.endswith("-0"))
        kube.core.create_namespaced_pod_eviction(victim, kube.namespace, {"metadata": {"name": victim}})
        lab("scale", "cloud", "3")
        assert run.wait(400) == 0, (lab.folder / "run.log").read_text()

        for name in ("hpc-0", "cloud-0"):
            assert [fact for fact in lab.facts(name) if fact["state"] == "preempted"], name
        assert contributed(lab, "storm") == nodes | {"cloud-2"}
        print(json.dumps({run: accuracy(lab, run) for run in ("calm", "storm")}))
        assert abs(accuracy(lab, "calm") - accuracy(lab, "storm")) <= 0.01
    finally:
        lab("down")
    until(lambda: not in_queue(slurm), 30)
    assert not pods(kube)
    assert not kube.core.list_namespaced_secret(kube.namespace, label_selector="flower-hpc/site").items
    assert not left_of(lab.home)


def test_a_queue_that_does_not_move_is_replaced_in_the_cloud_and_back(slurm_cluster, kube, tmp_path):
    slurm = slurm_cluster(nodes=2, gpu_nodes=0)
    burst = {"to": "cloud", "after_queue_minutes": 0.1, "back_after_minutes": 0.05}
    for node in slurm.knobs.names:
        slurm.run("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    lab = federation_of(tmp_path, kube, slurm, hpc={"burst": burst}, cloud={"nodes": 0})
    try:
        lab("up")  # as many as asked for are online, elsewhere
        online = {node["name"] for node in lab.status()["nodes"] if node["state"] == "online"}
        assert online == {"cloud-0", "cloud-1", "here-0"}
        assert len(pods(kube)) == 2
        for node in slurm.knobs.names:
            slurm.run("scontrol", "update", f"nodename={node}", "state=resume")
        until(lambda: {node["name"] for node in lab.status()["nodes"]} == {"hpc-0", "hpc-1", "here-0"})
        until(lambda: not pods(kube), 60)
        lab("run", "benchmark", "-c", "num-rounds=1", "--name", "home")
        assert contributed(lab, "home") == {"hpc-0", "hpc-1", "here-0"}
    finally:
        lab("down")
    until(lambda: not in_queue(slurm), 30)
