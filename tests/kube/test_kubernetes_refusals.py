"""What a cluster refuses, in its own words; and the Role that is enough."""

import pytest

from flower_hpc.launchers import JobState
from flower_hpc.launchers.k8s.connect import ClusterError
from flower_hpc.launchers.k8s.permissions import NEEDED, role


def refused(site, launcher, seconds=30):
    """What is said of a node that is not taken."""
    ticket = launcher.submit(site.spec(0))
    site.until(lambda: launcher.status(ticket).state is JobState.FAILED, seconds)
    status = launcher.status(ticket)
    assert status.refused
    assert "\n" not in status.reason
    return status.reason


def allow(site, manifest, name="someone"):
    """A kubeconfig of an account that may do what a Role says."""
    kube = site.kube
    if kube.cluster.real:
        pytest.skip("makes accounts on the stand-in")
    from kubernetes import client

    rbac = client.RbacAuthorizationV1Api(kube.api_client)
    kube.core.create_namespaced_service_account(kube.namespace, {"metadata": {"name": name}})
    rbac.create_namespaced_role(kube.namespace, manifest)
    binding = {
        "metadata": {"name": name},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "Role",
            "name": manifest["metadata"]["name"],
        },
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": kube.namespace}],
    }
    rbac.create_namespaced_role_binding(kube.namespace, binding)
    return kube.cluster.kubeconfig_of(kube.namespace, name)


def test_the_role_is_enough(site):
    launcher = site.launcher(kubeconfig=allow(site, role("flower-hpc")), namespace=None)
    tickets = [launcher.submit(site.spec(index)) for index in range(2)]
    site.running(launcher, *tickets)
    before = site.pods()
    launcher.cancel(tickets[0])
    again = launcher.submit(site.spec(0, fingerprint="b"))
    site.until(lambda: site.pods().get(site.pod(0)) not in (None, before[site.pod(0)]))
    site.running(launcher, again)
    site.until(lambda: "cloud-0 started" in launcher.fetch("cloud-0"))
    assert launcher.take_down() == []
    assert not site.left()


@pytest.mark.parametrize(
    ("resource", "verb"),
    [(resource, verb) for (_, resource), verbs in NEEDED.items() for verb in verbs],
)
def test_without_one_of_its_verbs_the_missing_one_is_named(site, resource, verb):
    manifest = role("flower-hpc")
    for rule in manifest["rules"]:
        if rule["resources"] == [resource]:
            rule["verbs"].remove(verb)
    manifest["rules"] = [rule for rule in manifest["rules"] if rule["verbs"]]
    launcher = site.launcher(kubeconfig=allow(site, manifest), namespace=None)
    words = refused(site, launcher)
    assert f"{verb} {resource}" in words
    assert len(words.split(",")) == 1
    assert not site.left()
    assert launcher.take_down() == []


def test_who_may_do_nothing_is_told_so_by_the_server_where_rules_are_not_known(site, monkeypatch):
    launcher = site.launcher(kubeconfig=allow(site, role("nothing") | {"rules": []}), namespace=None)
    monkeypatch.setattr(launcher.api, "rules", lambda: ((), False))  # as where a webhook decides
    assert "cannot patch resource" in refused(site, launcher)


def test_a_namespace_that_is_not_there(site):
    assert 'namespaces "nowhere" not found' in refused(site, site.launcher(namespace="nowhere"))


def test_credentials_that_have_expired(site):
    if site.kube.cluster.real:
        pytest.skip("makes tokens of the stand-in")
    path = site.kube.cluster.kubeconfig_of(site.kube.namespace, "default", seconds=-1)
    assert "does not accept the credentials (401 Unauthorized)" in refused(
        site, site.launcher(kubeconfig=path)
    )


def test_a_gpu_that_is_requested_without_a_limit(site):
    launcher = site.launcher(resources={"requests": {"nvidia.com/gpu": "1"}})
    assert "Limit must be set for non overcommitable resources" in refused(site, launcher)


def test_a_quota_is_told_in_the_servers_words(site):
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"requests.nvidia.com/gpu": "1"}}}
    site.kube.core.create_namespaced_resource_quota(site.kube.namespace, quota)
    launcher = site.launcher(gpus=1)
    tickets = [launcher.submit(site.spec(index)) for index in range(2)]
    site.until(lambda: any("exceeded quota: q" in launcher.status(one).reason for one in tickets), 40)


def test_a_cluster_that_is_not_there(site, tmp_path):
    path = tmp_path / "config"
    text = site.kube.kubeconfig.read_text()
    import re

    path.write_text(re.sub(r"https://[^\"\s]+", "https://127.0.0.1:1", text))
    launcher = site.launcher(kubeconfig=path)
    launcher.submit(site.spec(0))
    site.until(lambda: "cannot be reached" in launcher.trouble, 60)
    assert "Connection refused" in launcher.trouble


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"context": "other"}, "context must be one of: "),
        ({"kubeconfig": "nowhere"}, "kubeconfig: "),
        ({"kubeconfig": "broken"}, "kubeconfig: "),
    ],
)
def test_a_kubeconfig_that_cannot_be_used(site, tmp_path, options, words):
    (tmp_path / "broken").write_text("{nonsense: [")
    given = {key: tmp_path / value if key == "kubeconfig" else value for key, value in options.items()}
    assert words in refused(site, site.launcher(**given))


def test_logs_of_a_pod_that_is_not_there(site):
    with pytest.raises(ClusterError, match="not found"):
        site.launcher().fetch("cloud-0")
