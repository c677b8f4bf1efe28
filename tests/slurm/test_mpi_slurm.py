"""``srun flower-hpc mpi`` on a real Slurm: the lines of the README, and what becomes of a rank that dies."""

import json
import os
import subprocess

import pytest

from flower_hpc.telemetry import read_events
from mpi.conftest import APP
from processes import BIN

SCRIPT = """#!/bin/bash
#SBATCH --job-name=federation
#SBATCH --nodes=2
#SBATCH --ntasks=3
#SBATCH --time=5
#SBATCH --output={folder}/%j.out
srun --mpi=pmi2 --kill-on-bad-exit=1 {program} mpi {words}
"""


@pytest.fixture
def batch(slurm, tmp_path):
    """Run ``flower-hpc mpi WORDS`` as a batch job; its exit code and what it printed."""

    def run(*words):
        script = tmp_path / "job.sh"
        script.write_text(
            SCRIPT.format(folder=tmp_path, program=BIN / "flower-hpc", words=" ".join(map(str, words)))
        )
        done = subprocess.run(
            ["sbatch", "--wait", "--parsable", str(script)],
            env=os.environ | slurm.env | {"FLOWER_HPC_HOME": str(tmp_path / "home")},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=200,
        )
        job = done.stdout.strip().partition(";")[0]
        return done.returncode, (tmp_path / f"{job}.out").read_text() + done.stderr

    return run


def test_an_app_runs_as_a_job_of_two_hosts_and_resumes_after_a_rank_died(batch, tmp_path):
    code, text = batch(
        APP, "--nodes", 4, "--name", "one", "-c", "num-rounds=4", "-c", "dies=2", "-c", "dies-in=3"
    )
    assert code != 0
    assert "died (signal SIGKILL) while it worked on node-2" in text
    assert "--resume one" in text
    code, text = batch("--resume", "one", "-c", "dies=-1")
    assert code == 0, text
    model = json.loads((tmp_path / "home" / "_mpi" / "tried.json").read_text())
    assert (model["w"], model["same"]) == (1 + 4 * 2.5, True)
    rounds = [
        e["round"]
        for e in read_events(tmp_path / "home" / "_mpi" / "runs" / "one" / "events.jsonl")
        if e["event"] == "aggregated"
    ]
    assert rounds == [1, 2, 3, 4]
