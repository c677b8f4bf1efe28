"""One model on several processes of a site: as torchrun has it, and as one process would train it."""

import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict

from flower_hpc.client.site.fan import variables
from flower_hpc.protocol import MPI_ENV

EXAMPLE = Path(__file__).parents[2] / "examples" / "ddp"
CONFIG = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]


@pytest.fixture
def client(monkeypatch):
    """The example's ClientApp, on the path as Flower puts it there."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    yield import_module("ddp_example.client")
    for name in [name for name in sys.modules if name.startswith("ddp_example")]:
        del sys.modules[name]


def trained(client, folder):
    model = import_module("ddp_example.model").build()
    content = {"arrays": ArrayRecord(model.state_dict()), "config": ConfigRecord()}
    place = {"name": "n0", "partition-id": 3, "num-partitions": 8}
    context = Context(7, 1, place, RecordDict(), dict(CONFIG))
    return client.app(Message(RecordDict(content), 1, "train"), context).content


def test_ranks_together_equal_one_process_on_all_batches(one, client, monkeypatch):
    one.of(ranks=2, together=True)
    ours = trained(client, one.folder)
    again = trained(client, one.folder)  # another process group, in ranks that are warm
    monkeypatch.delenv(MPI_ENV)
    alone = trained(client, one.folder)
    assert ours["metrics"]["num-examples"] == alone["metrics"]["num-examples"] == 512
    for found in (ours, again):
        for name, x in alone["arrays"].items():
            assert found["arrays"][name].numpy() == pytest.approx(x.numpy(), rel=1e-5, abs=1e-6)
    start = import_module("ddp_example.model").build().state_dict()
    moved = [abs(alone["arrays"][name].numpy() - x.numpy()).max() for name, x in start.items()]
    assert min(moved) > 1e-3


def test_variables_are_torchrun_s():
    made = variables(["a", "a", "b"], "29400")
    assert [each["RANK"] for each in made] == ["0", "1", "2"]
    assert [each["LOCAL_RANK"] for each in made] == ["0", "1", "0"]
    assert [each["LOCAL_WORLD_SIZE"] for each in made] == ["2", "2", "1"]
    assert {(each["MASTER_ADDR"], each["MASTER_PORT"], each["WORLD_SIZE"]) for each in made} == {
        ("a", "29400", "3")
    }
    assert variables(["a", "a"], "1")[1]["MASTER_ADDR"] == "127.0.0.1"
