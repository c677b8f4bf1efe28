"""Federated dropout in the loop: nodes get parts, and each coordinate is averaged over those who had it."""

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from compressed import events
from flower_hpc import protocol
from flower_hpc.compression import CompressUpdates
from flower_hpc.compression.dropout import sub_shapes, where
from flower_hpc.errors import ConfigError
from flower_hpc.protocol import config_of
from flower_hpc.records import to_record, to_weights
from flower_hpc.strategies import Deadline, FederatedDropout, HybridStrategy
from flower_hpc.strategies.loop.submodels import positions
from flower_hpc.transport import InProcessGrid, InProcessNode

LAYERS = {"a": (8, 3), "b": (8, 8), "c": (2, 8)}
SHAPES = {f"{n}.{kind}": s for n, w in LAYERS.items() for kind, s in (("weight", w), ("bias", w[:1]))}
BOTH_FORMS = pytest.mark.parametrize("mods", [(), (CompressUpdates(),)], ids=["weights", "updates"])


def zeros() -> ArrayRecord:
    return to_record({k: np.zeros(shape, np.float32) for k, shape in SHAPES.items()})


def app_of(mods=(), seen=None, step=1.0) -> ClientApp:
    """Each node adds its number plus one to all that it gets."""
    app = ClientApp(mods=list(mods))

    @app.train()
    def train(msg, context):
        received, i = to_weights(msg.content["arrays"]), context.node_config["partition-id"]
        if seen is not None:
            seen.append((i, config_of(msg).get(protocol.WIDTH), received["b.weight"].shape))
        arrays = {k: x + np.float32(step * (i + 1)) for k, x in received.items()}
        content = RecordDict({"arrays": to_record(arrays), "metrics": MetricRecord({"num-examples": 1})})
        return Message(content, reply_to=msg)

    @app.evaluate()
    def evaluate(msg, context):
        assert to_weights(msg.content["arrays"])["b.weight"].shape == (8, 8)
        return Message(RecordDict({"m": MetricRecord({"num-examples": 1, "loss": 0.0})}), reply_to=msg)

    return app


def trained(grid, rounds=1, **options):
    result = HybridStrategy(seed=1, run_name="r", **options).start(grid, zeros(), num_rounds=rounds)
    return to_weights(result.arrays)


@BOTH_FORMS
def test_the_first_units_move_and_the_others_stay(mods):
    seen = []
    w = trained(InProcessGrid(app_of(mods, seen), 2), dropout=0.5)
    assert seen == [(0, 0.5, (4, 4)), (1, 0.5, (4, 4))]
    np.testing.assert_array_equal(w["b.weight"][:4, :4], 1.5)
    assert w["b.weight"].sum() == 1.5 * 16
    np.testing.assert_array_equal(w["a.weight"][:4], 1.5)
    assert w["a.weight"][4:].sum() == 0
    np.testing.assert_array_equal(w["c.bias"], 1.5)


@BOTH_FORMS
def test_each_coordinate_is_averaged_over_those_who_had_it(mods):
    """A fast node has the whole model, a slow one half of it."""
    nodes = [InProcessNode("fast", delay_s=1.0), InProcessNode("slow", delay_s=2.5)]
    seen = []
    grid = InProcessGrid(app_of(mods, seen), nodes)
    w = trained(grid, rounds=2, dropout=[1, 0.5])
    assert [width for i, width, _ in seen if i == 0] == [1.0, 1.0]
    assert [width for i, width, _ in seen if i == 1] == [1.0, 0.5]
    np.testing.assert_array_equal(w["b.weight"][:4, :4], 3.0)  # 1.5 twice
    np.testing.assert_array_equal(w["b.weight"][4:], 2.5)  # 1.5, then the fast node's alone


@pytest.mark.parametrize("order", ["rolling", "random"])
def test_other_units_take_their_turn(order):
    grid = InProcessGrid(app_of([CompressUpdates()]), 3)
    w = trained(grid, rounds=12, dropout=FederatedDropout(0.5, order))
    assert (w["b.bias"] > 0).all()
    shapes, full = sub_shapes(SHAPES, 0.5), {k: np.zeros(s) for k, s in SHAPES.items()}
    once = trained(InProcessGrid(app_of(), 2), dropout=FederatedDropout(0.5, order))
    for node in ("node-0", "node-1"):
        for name, kept in where(SHAPES, shapes, order, run="r", round=1, node=node).items():
            full[name].reshape(-1)[positions(SHAPES[name], kept)] += 1
    for name, count in full.items():
        assert ((once[name] > 0) == (count > 0)).all()


def test_a_late_part_goes_to_the_places_of_its_own_round():
    nodes = [InProcessNode("n0", delay_s=1.0), InProcessNode("n1", delay_s=3.5)]
    grid = InProcessGrid(app_of([CompressUpdates()]), nodes)
    dropout = FederatedDropout(0.5, "rolling")
    w = trained(grid, rounds=4, dropout=dropout, cutoff=Deadline(2))
    first = where(SHAPES, sub_shapes(SHAPES, 0.5), "rolling", run="r", round=1, node="n1")["a.bias"][0]
    assert (w["a.bias"][first] > 0).all()


def test_parts_are_compressed_too(tmp_path):
    how = {"up": "topk(0.5) >> int8(8)", "down": "int8(8)", "small": 0}
    grid = InProcessGrid(app_of([CompressUpdates()]), 2)
    w = trained(grid, rounds=40, dropout=0.5, compression=how, run_dir=tmp_path)
    # what was not sent is sent later: with steps of one and two all coordinates rise by 1.5 a round
    assert abs(w["b.weight"][:4, :4].mean() - 60) < 3
    sent = [e for e in events(tmp_path, "sent") if e["kind"] == "train"]
    assert all(e["bytes_down"] < e["bytes_down_full"] for e in sent)


def test_nodes_that_read_no_codecs_get_their_part_exactly(tmp_path):
    grid = InProcessGrid(app_of(), 2)
    w = trained(grid, rounds=3, dropout=0.5, compression={"down": "int8(8)", "small": 0}, run_dir=tmp_path)
    np.testing.assert_array_equal(w["b.weight"][:4, :4], 4.5)
    assert not events(tmp_path, "reply_failed")


def test_a_reply_of_another_part_is_refused(tmp_path):
    app = ClientApp(mods=[CompressUpdates()])

    @app.train()
    def train(msg, context):
        arrays = zeros() if context.node_config["partition-id"] else msg.content["arrays"]
        content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})})
        return Message(content, reply_to=msg)

    trained(InProcessGrid(app, 2), dropout=0.5, fraction_evaluate=0.0, run_dir=tmp_path)
    (refused,) = events(tmp_path, "reply_refused")
    assert refused["reason"] == "its array 'a.weight' is float32 (8, 3), expected float32 (4, 3)"


def test_a_model_whose_parts_are_not_understood_is_refused_at_once():
    strategy = HybridStrategy(dropout=0.5)
    arrays = to_record({"in_proj_weight": np.zeros((24, 8), np.float32), "out.weight": np.zeros((2, 8))})
    with pytest.raises(ConfigError, match="in_proj_weight"):
        strategy.start(InProcessGrid(app_of(), 2), arrays, num_rounds=1)
