"""A federation whose SuperNodes are light pods: each training message is a Job of the cluster."""

import json
import sys

import pytest

from doors import free_port
from flower_hpc.telemetry import read_events

pytestmark = [pytest.mark.federation, pytest.mark.timeout(600)]

FILE = """
name: lab
gateway: {{address: 127.0.0.1, port: {port}}}
sites:
  cloud:
    launcher: kubernetes
    mode: on-demand
    nodes: 1
    image: flower-hpc/node:1
    namespace: {namespace}
    kubeconfig: {kubeconfig}
    python: {python}
    via: 127.0.0.1:{port}
    gpus: 1
    grace_s: 10
"""


def test_each_training_message_is_a_job_and_nothing_is_left(kube, shell, tmp_path):
    text = FILE.format(
        port=free_port(), namespace=kube.namespace, kubeconfig=kube.kubeconfig, python=sys.executable
    )
    (tmp_path / "federation.yaml").write_text(text)
    done = shell("flower-hpc", "up")
    assert done.returncode == 0, done.stdout + done.stderr
    done = shell("flower-hpc", "run", "benchmark", "-c", "num-rounds=2", "--name", "first", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert len(result["rounds"]) == 2
    events = read_events(tmp_path / "home" / "lab" / "runs" / "first" / "events.jsonl")
    replies = [each for each in events if each["event"] == "reply_accepted"]
    made = kube.cluster.requests.find(verb="create", resource="jobs")
    assert len(replies) == len([each for each in made if f"/{kube.namespace}/" in each.path]) == 2
    assert all(each["queue_s"] > 0 for each in replies)
    done = shell("flower-hpc", "down")
    assert done.returncode == 0, done.stdout + done.stderr
    kube.wait(lambda: not kube.batch.list_namespaced_job(kube.namespace).items, 60)
    kube.wait(lambda: not kube.core.list_namespaced_pod(kube.namespace).items, 60)
    kube.wait(lambda: not kube.core.list_namespaced_secret(kube.namespace).items, 60)
