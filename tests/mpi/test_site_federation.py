"""A real SuperLink and real SuperNodes, one of which is a site of many clients."""

import json

import pytest

from flower_hpc.errors import ConfigError
from flower_hpc.federation import FederationConfig
from processes import BIN, left_of

pytestmark = [pytest.mark.federation, pytest.mark.timeout(600)]

FILE = f"""
name: lab
sites:
  here:
    nodes: 2
    mpi: {{clients: 3, ranks: 2, launch: {BIN / "mpiexec"}}}
"""


def test_nodes_answer_for_their_clients(shell, tmp_path):
    (tmp_path / "federation.yaml").write_text(FILE)
    assert shell("flower-hpc", "up").returncode == 0
    done = shell("flower-hpc", "run", "benchmark", "-c", "num-rounds=2", "--name", "first", "--json")
    state = tmp_path / "home" / "lab"
    logs = [path.read_text() for path in state.glob("nodes/*/site.log")]
    assert done.returncode == 0, done.stderr + "".join(logs)
    result = json.loads(done.stdout.splitlines()[-1])
    assert [row["replied"] for row in result["rounds"]] == [2, 2]
    assert [log.count("=== the site's job") for log in logs] == [1, 1]
    assert shell("flower-hpc", "down").returncode == 0
    assert not left_of(tmp_path)


@pytest.mark.parametrize(
    ("site", "said"),
    [
        ("{nodes: 1, mpi: {clients: 0}}", "here.mpi.clients: got 0, must be an integer from 1 to 1000"),
        ("{nodes: 1, mpi: {}}", "here.mpi.clients: got nothing, must be an integer from 1 to 1000"),
        ("{nodes: 1, mpi: {clients: 2, ranks: 3}}", "here.mpi.ranks: got 3, must be at most the 2 clients"),
        ("{nodes: 1, mpi: {together: true}}", "here.mpi.ranks: got nothing, must be an integer from 1"),
        ("{nodes: 1, mpi: {ranks: 2, clients: 2, together: true}}", "here.mpi.clients: got 2, must be left"),
        ("{nodes: 1, mpi: {clents: 2}}", "here.mpi.clents: unknown field"),
        (
            "{launcher: slurm, cpus: 3, nodes: 1, mpi: {clients: 8, ranks: 4}}",
            "here.cpus: got 3, must be at least the 4 ranks of mpi that train",
        ),
        ("{nodes: 1, mpi: 4}", "here.mpi: got 4, must be a mapping"),
        ("{nodes: 1, network: private, mpi: {clients: 2}}", "here.network: got 'private', must be host"),
        (
            "{launcher: slurm, mode: on-demand, nodes: 1, mpi: {clients: 2}}",
            "here.mpi: got a mapping",
        ),
    ],
)
def test_what_a_site_s_mpi_may_hold(tmp_path, site, said):
    path = tmp_path / "federation.yaml"
    path.write_text(f"sites: {{here: {site}}}\n")
    with pytest.raises(ConfigError) as caught:
        FederationConfig.load(path)
    assert f"sites.{said}" in str(caught.value)
    assert "\n" not in str(caught.value)
