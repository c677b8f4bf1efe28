"""A cluster for the tests of this folder, and a fresh namespace on it for each."""

import os
import uuid
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config

from kube import sandbox
from kube.cluster import KubernetesCluster
from kube.pods import Site
from kube.real import RealCluster

# set where a cluster must be there: what cannot run there, fails
REQUIRE = "FLOWER_HPC_REQUIRE_KUBERNETES"
# a kubeconfig of a real cluster to test on
REAL = "FLOWER_HPC_TEST_KUBECONFIG"


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.kubernetes)


@contextmanager
def running(folder, **knobs):
    """A stand-in, whose own mistakes fail the test."""
    if why := sandbox.why_not():
        (pytest.fail if os.environ.get(REQUIRE) == "1" else pytest.skip)(why)
    with KubernetesCluster(folder, **knobs) as cluster:
        yield cluster
        assert not cluster.errors, cluster.errors[0]


@pytest.fixture(scope="session")
def kubernetes_cluster(tmp_path_factory):
    """A cluster for all tests; each leaves its nodes as they were."""
    if path := os.environ.get(REAL):
        yield RealCluster(Path(path))
        return
    with running(tmp_path_factory.mktemp("kube")) as cluster:
        yield cluster


@pytest.fixture
def make_kubernetes(tmp_path_factory):
    """Bring up a stand-in with knobs of its own: ``cluster = make_kubernetes(backoff_s=10)``."""
    with ExitStack() as stack:

        def bring_up(**knobs):
            return stack.enter_context(running(tmp_path_factory.mktemp("kube"), **knobs))

        yield bring_up


@dataclass
class Kube:
    """A namespace of a cluster, with the official client for an administrator of it."""

    cluster: Any
    namespace: str
    api_client: client.ApiClient

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.cluster.kubeconfig

    @property
    def core(self) -> client.CoreV1Api:
        """Pods, secrets, ..."""
        return client.CoreV1Api(self.api_client)

    @property
    def apps(self) -> client.AppsV1Api:
        """StatefulSets and Deployments."""
        return client.AppsV1Api(self.api_client)

    @property
    def batch(self) -> client.BatchV1Api:
        """Jobs."""
        return client.BatchV1Api(self.api_client)

    def wait(self, predicate, seconds=20):
        """Wait until ``predicate()`` holds."""
        return self.cluster.wait(predicate, seconds)


@contextmanager
def namespace_on(cluster):
    """A fresh namespace; it and all in it goes afterwards."""
    name = f"fl-{uuid.uuid4().hex[:8]}"
    with config.new_client_from_config(str(cluster.kubeconfig)) as api_client:
        core = client.CoreV1Api(api_client)
        core.create_namespace({"metadata": {"name": name}})
        try:
            yield Kube(cluster, name, api_client)
        finally:
            if not cluster.real:
                cluster.faults.clear()
                for pod in cluster.store.list("pods", name):  # nothing that they would save is wanted
                    cluster.store.remove("pods", pod)
            core.delete_namespace(name)


@pytest.fixture
def kube(kubernetes_cluster):
    """A fresh namespace on the cluster for all tests."""
    with namespace_on(kubernetes_cluster) as found:
        found.cluster.requests.clear() if not found.cluster.real else None
        yield found


@pytest.fixture
def make_kube(make_kubernetes):
    """A fresh namespace on a stand-in with knobs of its own: ``kube = make_kube(backoff_s=10)``."""
    with ExitStack() as stack:
        yield lambda **knobs: stack.enter_context(namespace_on(make_kubernetes(**knobs)))


@pytest.fixture
def site(kube, tmp_path):
    """A site of three nodes on the cluster for all tests."""
    made = Site(kube, tmp_path / "site")
    yield made
    made.close()
