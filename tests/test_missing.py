"""What a site of this machine names and has not is said before it is brought up, and stops nothing."""

import pytest

from flower_hpc.federation import Federation


def warned(tmp_path, site):
    path = tmp_path / "federation.yaml"
    path.write_text(f"name: lab\nsites: {{here: {site}}}\n")
    found = Federation.load(path).warnings
    return [words for words in found if words.startswith("sites.")]


@pytest.mark.parametrize(
    "site",
    [
        "{nodes: 1}",
        "{nodes: 1, warm: [numpy, json]}",
        "{nodes: 1, warm: false}",
        "{nodes: 1, mpi: {clients: 2, launch: env -i mpiexec}}",
        "{nodes: 1, mpi: {clients: 2}}",
        "{nodes: 1, launcher: slurm, cpus: 2, warm: [nowhere], mpi: {clients: 2, launch: nowhere}}",
    ],
)
def test_what_is_there_or_may_be_elsewhere_is_not_told(tmp_path, site):
    assert warned(tmp_path, site) == []


def test_what_is_missing_is_a_line_each(tmp_path):
    site = "{nodes: 1, warm: [numpy, torhc, jxa], mpi: {clients: 2, launch: mpiexce -bind-to core}}"
    warm, launch = warned(tmp_path, site)
    assert warm.startswith("sites.here.warm: torhc, jxa: no such package")
    assert launch.startswith("sites.here.mpi.launch: mpiexce: no such program on PATH")


def test_a_sites_own_path_counts(tmp_path):
    program = tmp_path / "mympi"
    program.write_text("")
    program.chmod(0o755)
    site = "{nodes: 1, mpi: {clients: 2, launch: mympi}"
    assert warned(tmp_path, f"{site}}}")
    assert warned(tmp_path, f"{site}, env: {{PATH: {tmp_path}}}}}") == []
