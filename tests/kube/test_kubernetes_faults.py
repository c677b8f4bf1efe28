"""Faults on the way to the cluster: the end state is right, and nothing is there twice."""

import pytest

from kube.pods import FAKE

pytestmark = pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")


@pytest.fixture
def cluster(site):
    """The stand-in, whose faults can be chosen."""
    if site.kube.cluster.real:
        pytest.skip("a real cluster has no faults to choose")
    return site.kube.cluster


def comes_up_and_goes(site, launcher, count=3):
    """The whole life of a site, and that there is one object of each kind on the way."""
    tickets = [launcher.submit(site.spec(index)) for index in range(count)]
    site.running(launcher, *tickets)
    assert sorted(site.pods()) == [site.pod(index) for index in range(count)]
    assert sorted(site.left()) == sorted([*site.pods(), *[site.place.name] * 5])
    assert launcher.take_down() == []
    assert not site.left()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_servers_in_trouble_are_asked_again(site, cluster, status):
    fault = cluster.faults.add(method="PATCH|GET|DELETE|POST", times=6, status=status, retry_after=1)
    comes_up_and_goes(site, site.launcher(image=FAKE))
    assert fault.happened == 6


def test_a_conflict_is_asked_again(site, cluster):
    fault = cluster.faults.add(method="PATCH", path="statefulsets", times=2, status=409)
    comes_up_and_goes(site, site.launcher(image=FAKE))
    assert fault.happened == 2


@pytest.mark.parametrize("path", ["secrets", "statefulsets", "serviceaccounts", "networkpolicies"])
def test_an_answer_that_was_lost_makes_nothing_twice(site, cluster, path):
    fault = cluster.faults.lose_response(method="PATCH", path=path, times=2)
    comes_up_and_goes(site, site.launcher(image=FAKE))
    assert fault.happened == 2


def test_a_lost_answer_to_a_deletion_is_a_deletion(site, cluster):
    launcher = site.launcher(image=FAKE)
    site.running(launcher, launcher.submit(site.spec(0)))
    fault = cluster.faults.lose_response(method="DELETE", times=3)
    assert launcher.take_down() == []
    assert fault.happened == 3
    assert not site.left()


def test_a_watch_that_is_dropped_goes_on_where_it_was(site, cluster):
    launcher = site.launcher(image=FAKE)
    ticket = launcher.submit(site.spec(0))
    site.running(launcher, ticket)
    lists = len(cluster.requests.find(verb="list", resource="pods"))
    for _ in range(3):
        cluster.faults.drop_watches()
        site.kube.core.delete_namespaced_pod(site.pod(0), site.kube.namespace, grace_period_seconds=0)
        site.until(lambda: launcher.status(ticket).state == "pending")
        site.running(launcher, ticket)
    ours = [one for one in cluster.requests.find(verb="list", resource="pods")][lists:]
    assert not [one for one in ours if "labelSelector" in one.path]


def test_a_history_that_is_forgotten_is_listed_anew(site, cluster):
    launcher = site.launcher(image=FAKE)
    ticket = launcher.submit(site.spec(0))
    site.running(launcher, ticket)
    cluster.faults.add(method="GET", path="watch=true", times=2, status=500)
    cluster.faults.drop_watches()
    site.kube.core.delete_namespaced_pod(site.pod(0), site.kube.namespace, grace_period_seconds=0)
    cluster.faults.compact()
    site.until(lambda: launcher.status(ticket).state == "pending")
    site.running(launcher, ticket)


def test_objects_that_somebody_else_deletes_come_back(site, cluster):
    launcher = site.launcher(image=FAKE)
    ticket = launcher.submit(site.spec(0))
    site.running(launcher, ticket)
    site.kube.apps.delete_namespaced_stateful_set(site.place.name, site.kube.namespace)
    site.until(lambda: launcher.status(ticket).state == "pending")
    site.until(lambda: site.pods(), 60)
    site.running(launcher, ticket)


def test_everything_that_somebody_else_deletes_comes_back(site, cluster, monkeypatch):
    monkeypatch.setattr("flower_hpc.launchers.k8s.applied.REPEAT_S", 2.0)
    launcher = site.launcher(image=FAKE)
    site.running(launcher, launcher.submit(site.spec(0)))
    site.kube.core.delete_namespaced_secret(site.place.name, site.kube.namespace)
    site.kube.core.delete_namespaced_service_account(site.place.name, site.kube.namespace)
    site.until(lambda: site.left().count(site.place.name) == 5)
