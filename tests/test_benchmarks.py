"""The benchmarks that tests can afford: they run, and print what they promise."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROUNDS = Path(__file__).parents[1] / "benchmarks" / "rounds.py"


def rounds(*words):
    # Flower's simulation, which is not run here, warns where it is imported
    env = os.environ | {"PYTHONWARNINGS": "ignore"}
    command = [sys.executable, str(ROUNDS), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=env)


def test_the_column_of_mpi_measures_every_model():
    done = rounds("--case", "columns", "--columns", "mpi", "--quick")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])["columns"]
    assert [(row["column"], row["model"]) for row in found["rows"]] == [
        ("mpi", "tiny"), ("mpi", "tiny, torch"), ("mpi", "1 MB"),
    ]  # fmt: skip
    for row in found["rows"]:
        assert 0 < row["fastest_s"] <= row["round_s"] <= row["slowest_s"]
        assert row["peak_mb"] > 20
    assert {name: sorted(row) for name, row in found["bare_mpi"].items()} == {
        "tiny": ["default_s", "mpir_s"],
        "1 MB": ["default_s", "mpir_s"],
    }
    assert found["floor"] == {"idle_s": 3.0, "look_s": 0.5}  # of Flower's SuperNode: other numbers are news
    assert found["bars"] == []  # they are for the whole sizes, and for two columns
    assert "ours on MPI" in done.stdout


@pytest.mark.federation
def test_a_message_is_timed_on_every_way_to_its_node():
    done = rounds("--case", "pull", "--quick", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["pull"]
    for way in ("direct", "held", "bell"):
        assert len(found[way]["all"]) == 2  # the first does not count
        assert 0 < found[way]["median"] < 60
    assert [bar["what"] for bar in found["bars"]] == ["sending -> command: direct / bell"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--columns", "mpi,mpp"), "'mpp' is none of stock, ours, mpi, ray"),
        (("--case", "fast"), "invalid choice: 'fast'"),
        (("--pairs", "0"), "must be a whole number >= 1, got '0'"),
        (("--colums", "mpi"), "unrecognized arguments: --colums"),
    ],
)
def test_a_wrong_word_is_one_line(words, said):
    done = rounds(*words)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
