"""A site as one node on a real Slurm: the clients of a SuperNode in a job are ranks that srun starts."""

import json

import pytest

from lab import Lab

pytestmark = [pytest.mark.federation, pytest.mark.timeout(600)]

FILE = """
name: lab
sites:
  hpc: {launcher: slurm, nodes: 1, cpus: 2, poll_s: 1, mpi: {clients: 4, ranks: 2}}
"""


def test_a_job_answers_for_its_clients_and_leaves_nothing(slurm_cluster, tmp_path):
    cluster = slurm_cluster(nodes=1, gpu_nodes=0)
    (tmp_path / "federation.yaml").write_text(FILE)
    lab = Lab(tmp_path, "lab")
    try:
        lab("up")
        done = lab("run", "benchmark", "-c", "num-rounds=3", "--json", "--name", "first")
        logs = [path.read_text() for path in lab.home.glob("sites/hpc/nodes/*/site.log")]
        result = json.loads(done.splitlines()[-1])
        assert [row["replied"] for row in result["rounds"]] == [1, 1, 1], logs
        assert [log.count("srun --jobid=") for log in logs] == [1], logs
        # all of the data, by four clients of a quarter each
        accepted = [e for e in lab.events("first") if e["event"] == "reply_accepted" and e["kind"] == "train"]
        assert {e["examples"] for e in accepted} == {1400.0}
    finally:
        lab("down")
    assert not cluster.jobs()
