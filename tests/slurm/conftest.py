"""Clusters for the tests of this folder: one for all, one with accounting, or one of their own."""

import os
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import pytest

from slurm.cluster import SlurmCluster, SlurmError, missing

# set where Slurm must be there: what cannot run there, fails
REQUIRE = "FLOWER_HPC_REQUIRE_SLURM"
SESSION = ("slurm", "slurm_with_accounting")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.slurm)


def needed(accounting=False):
    """Skip, or fail where it is required, without the programs of a cluster."""
    if lacking := missing(accounting):
        reason = f"needs {', '.join(lacking)}: apt-get install slurm-wlm munge slurmdbd mariadb-server"
        (pytest.fail if os.environ.get(REQUIRE) == "1" else pytest.skip)(reason)


@contextmanager
def running(request, folder, **knobs):
    """A cluster whose logs are kept where a test failed meanwhile."""
    needed(knobs.get("accounting", False))
    failed = request.session.testsfailed
    cluster = SlurmCluster(folder, **knobs)
    cluster.up()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", cluster.env["SLURM_CONF"])
        try:
            yield cluster
        finally:
            cluster.down(keep_logs=request.session.testsfailed > failed)


@contextmanager
def no_jobs_left(cluster, settle_s=10):
    """Fail for jobs that were not there before and do not end by themselves at once; cancel them."""
    before = {job for job, _, _ in cluster.jobs()}

    def left():
        return [job for job in cluster.jobs() if job[0] not in before]

    yield
    try:
        cluster.wait_until(lambda: not any(state != "COMPLETING" for _, _, state in left()), 2)
    except SlurmError:
        found = left()
        cluster.run("scancel", *(job for job, _, _ in found))
        cluster.wait_until(lambda: not left(), settle_s)
        pytest.fail(f"left jobs behind: {found}")
    cluster.wait_until(lambda: not left(), settle_s)


@pytest.fixture(scope="session")
def slurm(request, tmp_path_factory):
    """A cluster for all tests; each leaves it as it was: no job, no node down."""
    with running(request, tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def slurm_with_accounting(request, tmp_path_factory):
    """The same with slurmdbd: account ``fl``, qos ``normal``, ``high`` and ``tiny``."""
    with running(request, tmp_path_factory.mktemp("slurm"), accounting=True) as cluster:
        yield cluster


@pytest.fixture
def slurm_cluster(request, tmp_path_factory):
    """Bring up a cluster with knobs of its own: ``cluster = slurm_cluster(nodes=2)``."""
    with ExitStack() as stack:

        def bring_up(**knobs):
            return stack.enter_context(running(request, tmp_path_factory.mktemp("slurm"), **knobs))

        yield bring_up


@pytest.fixture(autouse=True)
def clean(request, monkeypatch):
    """The cluster that a test asks for is the one that clients find, and has no jobs left after it."""
    used = [name for name in SESSION if name in request.fixturenames]
    cluster = request.getfixturevalue(used[0]) if used else None
    if cluster:
        monkeypatch.setenv("SLURM_CONF", cluster.env["SLURM_CONF"])  # there may be the other, too
    with no_jobs_left(cluster) if cluster else nullcontext():
        yield
