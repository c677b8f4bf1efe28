"""The launcher over PSI/J on a real Slurm."""

from functools import partial

import pytest

from launcher_suite import LauncherSuite
from slurm.conftest import running

pytest.importorskip("psij", reason="needs flower-hpc[psij]")

from flower_hpc.launchers import JobState
from flower_hpc.launchers.psij import PsijLauncher
from flower_hpc.launchers.psij_job import PsijOptions


@pytest.fixture(scope="module")
def slurm(request, tmp_path_factory):
    """A cluster of its own: PSI/J reads no state at all while squeue shows a reason that it does not know."""
    with running(request, tmp_path_factory.mktemp("psij"), nodes=2, gpu_nodes=0) as cluster:
        yield cluster


@pytest.fixture
def options(slurm, tmp_path):
    return partial(PsijOptions, executor="slurm", folder=tmp_path / "psij-memory", minutes=5, poll_s=1)


class TestSlurm(LauncherSuite):
    patience_s = 60

    @pytest.fixture
    def make(self, options):
        return partial(PsijLauncher, options())

    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            ({"queue": "nowhere"}, "slurm did not take job: invalid partition specified: nowhere"),
            ({"mem_gb": 9999.0}, "slurm did not take job: Memory specification can not be satisfied"),
            ({"attributes": {"slurm.nonsense": "1"}}, "slurm did not take job: sbatch: unrecognized option"),
        ],
    )
    def test_a_refusal_is_one_line_in_slurms_words(self, options, python, wrong, words):
        launcher = PsijLauncher(options(**wrong))
        job = launcher.submit(python("pass"))
        status = self.ended(launcher, job)
        launcher.close()
        assert (status.state, status.refused) == (JobState.FAILED, True)
        assert words in status.reason
        assert "\n" not in status.reason

    def test_what_is_asked_for_reaches_slurm(self, slurm, options, python):
        launcher = PsijLauncher(options(minutes=7, cpus=2, mem_gb=0.5, attributes={"slurm.comment": "ours"}))
        job = launcher.submit(python("import time; time.sleep(300)", name="a node"))
        self.until(lambda: launcher.status(job).state is JobState.RUNNING)
        fields = slurm.run("squeue", "-h", "-n", "a_node", "-o", "%j|%l|%C|%m|%k").strip()
        assert fields == "a_node|7:00|2|512M|ours"
        launcher.cancel(job)
        self.ended(launcher, job)
        launcher.close()

    def test_who_is_killed_behind_our_back_is_seen_to_be_cancelled(self, slurm, launcher, python):
        job = launcher.submit(python("import time; time.sleep(300)", name="victim"))
        self.until(lambda: launcher.status(job).state is JobState.RUNNING)
        slurm.run("scancel", "-n", "victim")
        assert self.ended(launcher, job).state is JobState.CANCELLED
