"""A federation with pods: real SuperLink, gateway and SuperNodes, TLS and node keys."""

import contextlib
import os
import signal
import time

import psutil
import pytest

from lab import Lab, until
from processes import rounds_begun

pytestmark = [pytest.mark.federation, pytest.mark.timeout(600)]
TEXT = """
name: lab
gateway: {{address: 127.0.0.1}}
partitions: 4
sites:
  cloud: {{launcher: kubernetes, nodes: {nodes}, image: "flower-hpc:test", namespace: {namespace},
           cpus: 1, mem: 1Gi, grace_s: 30, {more}}}
"""


@pytest.fixture
def lab(kube, tmp_path):
    """A federation whose site is a namespace of the cluster; taken down at the end."""
    made = []

    def make(nodes=2, more="", namespace=None):
        text = TEXT.format(nodes=nodes, namespace=namespace or kube.namespace, more=more)
        (tmp_path / "federation.yaml").write_text(text)
        made.append(Lab(tmp_path, "lab", KUBECONFIG=str(kube.kubeconfig)))
        return made[-1]

    yield make
    for one in made:
        if one.home.exists():
            one("down", "lab")


def pods(kube):
    """The names and uids of the federation's pods."""
    found = kube.core.list_namespaced_pod(kube.namespace, label_selector="flower-hpc/federation=lab").items
    return {one.metadata.labels["apps.kubernetes.io/pod-index"]: one.metadata for one in found}


def trained_for(kube, pod):
    """Seconds of processor time of a pod's ClientApp: the first few go into importing torch."""
    family = [psutil.Process(pid) for pid in kube.cluster.pids(kube.namespace, pod)]
    apps = [one for first in family for one in first.children(recursive=True)]
    with contextlib.suppress(psutil.Error):  # one of them has ended meanwhile
        return max(
            (one.cpu_times().user for one in apps if "clientapp" in " ".join(one.cmdline())), default=0
        )
    return 0


def test_what_a_pod_has_done_counts_when_it_is_asked_to_leave(kube, lab):
    federation = lab()
    federation("up")
    settings = ("-c", "num-rounds=2", "-c", "local-epochs=100000", "--strategy", "first_k(1.0)")
    run = federation.start("run", "benchmark", *settings, "--name", "long", "--json")
    log = federation.home / "runs/long/events.jsonl"
    until(lambda: log.exists() and rounds_begun(log) == [1])
    until(lambda: "Receiving" in federation("logs", "cloud-0"))
    victims = pods(kube)
    until(lambda: all(trained_for(kube, one.name) > 10 for one in victims.values()))
    asked = time.time()
    for name in ("0", "1"):
        kube.core.delete_namespaced_pod(victims[name].name, kube.namespace)
    until(lambda: [e for e in federation.events("long") if e["event"] == "reply_accepted"], 60)
    replies = until(
        lambda: len(e := [e for e in federation.events("long") if e["event"] == "reply_accepted"]) == 2 and e
    )
    assert {one["node"] for one in replies} == {"cloud-0", "cloud-1"}
    for one in replies:
        assert one["time"] < asked + 30
        assert one["round"] == 1
    joined = until(lambda: [e for e in federation.events("long") if e["event"] == "aggregated"])
    assert joined[0]["replies"] == 2
    learnt = [e["metrics"]["accuracy"] for e in federation.events("long") if e["event"] == "evaluated"]
    assert learnt[1] > learnt[0] + 0.2  # of steps that were done before they left
    uids = {one.uid for one in victims.values()}
    until(lambda: len(found := pods(kube)) == 2 and not uids & {one.uid for one in found.values()})
    until(lambda: all(node["state"] == "online" for node in federation.status()["nodes"]))
    run.send_signal(signal.SIGINT)
    run.wait(60)


def test_pods_come_back_under_their_names_and_a_killed_controller_costs_nothing(kube, lab):
    federation = lab(more="autoscale: {min: 1, max: 4, idle_minutes: 60}")
    federation("up")
    before = {node["name"]: node for node in federation.status()["nodes"]}
    run = federation.start("run", "benchmark", "-c", "num-rounds=12", "--name", "storm", "--json")
    log = federation.home / "runs/storm/events.jsonl"
    until(lambda: log.exists() and len(rounds_begun(log)) >= 2)
    kube.cluster.evict(kube.namespace, pods(kube)["0"].name)
    lost = until(lambda: [f for f in federation.facts("cloud-0") if f["state"] == "preempted"])
    assert "low on resource" in lost[0]["reason"]
    until(lambda: federation.node("cloud-0")["state"] == "online")
    assert federation.node("cloud-0")["node_id"] == before["cloud-0"]["node_id"]
    kube.cluster.oom(kube.namespace, pods(kube)["1"].name)
    lost = until(lambda: [f for f in federation.facts("cloud-1") if f["state"] == "failed"])
    assert "OOMKilled" in lost[0]["reason"]
    os.kill(federation.status()["controller_pid"], signal.SIGKILL)
    uids = {name: one.uid for name, one in pods(kube).items()}
    federation("up")
    assert {name: one.uid for name, one in pods(kube).items()} == uids
    federation("scale", "cloud", "3")
    federation("scale", "cloud", "1")
    assert run.wait(300) == 0, (federation.folder / "run.log").read_text()
    rounds = [e["round"] for e in federation.events("storm") if e["event"] == "round_finished"]
    assert rounds == list(range(1, 13))
    federation("down")
    until(lambda: not pods(kube), 20)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("pull_policy: Never, python: nowhere", "cloud-0: "),
        ("resources: {requests: {nvidia.com/gpu: '1'}}", "Limit must be set for non overcommitable"),
    ],
)
def test_what_a_cluster_refuses_is_one_line(kube, lab, more, words):
    said = lab(nodes=1, more=more)("up", code=1)
    assert said.splitlines()[-1].startswith("error: federation lab cannot start: not online: cloud-0")
    assert words in said


def test_a_namespace_that_is_not_there_is_one_line(kube, lab):
    said = lab(nodes=1, namespace="nowhere")("up", code=1)
    assert 'namespaces "nowhere" not found' in said.splitlines()[-1]
