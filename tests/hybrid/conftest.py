"""Both clusters for one test: a real Slurm, and Kubernetes as the tests in `kube` have it."""

import pytest

from kube.conftest import kube, kubernetes_cluster, make_kube, make_kubernetes
from slurm.conftest import slurm_cluster

__all__ = ["kube", "kubernetes_cluster", "make_kube", "make_kubernetes", "slurm_cluster"]


def pytest_collection_modifyitems(items):
    for item in items:
        if "hybrid" in item.path.parts:
            item.add_marker(pytest.mark.slurm)
            item.add_marker(pytest.mark.kubernetes)
