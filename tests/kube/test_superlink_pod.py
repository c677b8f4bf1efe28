"""A SuperLink that is a pod: brought up from outside, it brings its sites up, and they outlive it."""

import json

import pytest
import yaml

from doors import free_port

IMAGE = "flower-hpc/test:1"
pytestmark = [pytest.mark.federation, pytest.mark.timeout(300)]


def ready(kube, name):
    """The uid of the only pod of a name's objects, where it is ready."""
    chosen = f"app.kubernetes.io/instance={name}"
    found = kube.core.list_namespaced_pod(kube.namespace, label_selector=chosen).items
    uids = [
        pod.metadata.uid
        for pod in found
        if pod.metadata.deletion_timestamp is None
        and any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions or ())
    ]
    return uids[0] if len(found) == len(uids) == 1 else None


def test_its_sites_outlive_it_and_all_goes_with_down(kube, shell, tmp_path):
    port = free_port()
    link = {"launcher": "kubernetes", "image": IMAGE, "namespace": kube.namespace, "grace_s": 20}
    site = {"launcher": "kubernetes", "image": IMAGE, "nodes": 1, "grace_s": 5}
    both = {"kubeconfig": str(kube.kubeconfig)}
    config = {
        "name": "lab",
        # pods of the stand-in share this machine's network
        "gateway": {"address": "127.0.0.1", "port": port},
        "superlink": link | both,
        "sites": {"cloud": site | both},
    }
    (tmp_path / "federation.yaml").write_text(yaml.safe_dump(config))
    up = shell("flower-hpc", "up")
    assert up.returncode == 0, up.stderr
    assert "exec deploy/flower-hpc-lab -c superlink -- flower-hpc status lab" in up.stderr

    (name,) = kube.wait(
        lambda: [
            one.metadata.name
            for one in kube.apps.list_namespaced_stateful_set(kube.namespace).items
            if one.metadata.labels["flower-hpc/site"] == "cloud"
        ],
        60,
    )
    node = kube.wait(lambda: ready(kube, name), 90)
    first = ready(kube, "flower-hpc-lab")

    pod = kube.core.list_namespaced_pod(
        kube.namespace, label_selector="app.kubernetes.io/instance=flower-hpc-lab"
    ).items[0]
    kube.core.delete_namespaced_pod(pod.metadata.name, kube.namespace)
    second = kube.wait(lambda: (uid := ready(kube, "flower-hpc-lab")) != first and uid, 90)
    assert second
    kube.wait(lambda: ready(kube, name) == node, 90)

    status = shell("flower-hpc", "status")
    assert status.returncode == 2
    assert "lives in a cluster, ask it there: kubectl" in status.stderr

    down = shell("flower-hpc", "down")
    assert down.returncode == 0, down.stderr
    assert kube.core.list_namespaced_pod(kube.namespace).items == []
    assert kube.apps.list_namespaced_stateful_set(kube.namespace).items == []
    secrets = kube.core.list_namespaced_secret(kube.namespace).items
    assert [one.metadata.name for one in secrets] == []
    claims = kube.core.list_namespaced_persistent_volume_claim(kube.namespace).items
    assert [one.metadata.name for one in claims] == ["flower-hpc-lab"]
    assert json.loads(shell("flower-hpc", "down", "--json").stdout)["was_up"] is False
