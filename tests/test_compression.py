"""Compressed updates: how each array travels, and what the server makes of it."""

import json

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAdam, FedAvg
from hypothesis import given, settings
from hypothesis import strategies as st

from compressed import SIZE, TARGETS, distance, events, model, run
from conftest import grid_of, stepping
from flower_hpc.compression import Compression, CompressUpdates, Int8
from flower_hpc.compression.update import decode, encode_update
from flower_hpc.errors import ConfigError
from flower_hpc.mean import StreamingMean
from flower_hpc.records import Sparse, densify, to_weights
from flower_hpc.strategies import HybridStrategy, parse, with_default


def test_small_arrays_statistics_and_integers_travel_exactly_unless_a_rule_says_otherwise():
    arrays = {
        "conv.weight": np.ones((40, 50), np.float32),
        "conv.bias": np.ones(40, np.float32),
        "bn.running_mean": np.ones(2000, np.float32),
        "bn.num_batches_tracked": np.array(7),
        "table": np.arange(3000),
        "head.weight": np.ones((40, 50), np.float32),
        "mask": np.ones(5000, bool),
        "wave": np.ones(5000, np.complex64),
    }
    rules = {"head.*": "topk(0.5)", "conv.bias": "float16", "table": "topk", "wave": "topk", "bn.*": "topk"}
    how = Compression(up=Int8(), rules=rules)
    stypes = {name: array.stype for name, array in encode_update(arrays, how).items()}
    assert stypes.pop("conv.weight") == "flower_hpc:int8(1024,nearest)"
    assert stypes.pop("head.weight") == "flower_hpc:topk(0.5,model)"
    assert stypes.pop("conv.bias") == "flower_hpc:float16"
    assert set(stypes.values()) == {"numpy.ndarray"}
    back = densify(decode(encode_update(arrays, how)))
    assert {k: (x.dtype, x.shape) for k, x in back.items()} == {
        k: (x.dtype, x.shape) for k, x in arrays.items()
    }


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("nothing", "codec 'nothing' is unknown"),
        (3, "compression must be a codec or a mapping, got 3"),
        ({"upp": "int8"}, "compression has no parameter 'upp', known are up, down"),
        ({"up": 3}, "up must be a codec, got 3"),
        ({"down": "topk(0.1)"}, "down must keep the whole model unless delta is true"),
        ({"delta": True}, "delta needs a codec in down"),
        ({"decay": 1.5}, r"decay must be in \[0, 1\], got 1.5"),
        ({"momentum": 1}, r"momentum must be in \[0, 1\), got 1"),
        ({"small": -1}, "small must be a whole number >= 0, got -1"),
        ({"accept": 5}, "accept must be a list of names of codecs, got 5"),
        ({"momentum": 0.5, "rules": {"a": "randomk(0.1, 0, true)"}}, "takes neither delta nor momentum"),
        ({"accept": ["gzip"]}, "accept must be of identity, raw"),
        ({"up": "topk >> int8", "accept": ["int8"]}, "missing topk"),
        ({"rules": "x"}, "rules must map patterns to codecs, got 'x'"),
        ({"feedback": 1}, "feedback must be true or false, got 1"),
    ],
)
def test_bad_settings_are_one_clear_line(value, words):
    with pytest.raises(ConfigError, match=words) as error:
        HybridStrategy(compression=value)
    assert "\n" not in str(error.value)


def test_a_node_hears_all_that_it_needs():
    how = Compression(up="topk(0.1) >> int8", rules={"a.*": "int4"}, small=5, decay=0.5, momentum=0.3)
    heard = Compression.answer(how.ask())
    assert heard == Compression(up=how.up, rules=how.rules, small=5, decay=0.5, momentum=0.3)
    for text in ("{", "[]", '{"up": "int8"}', '{"up": 3}'):
        with pytest.raises(ConfigError, match="cannot be read"):
            Compression.answer(text)


def test_a_compression_that_loses_nothing_changes_nothing(tmp_path):
    plain = run(grid_of(stepping(TARGETS, 0.3), 8))
    both = {"up": "topk(1.0)", "down": "topk(1.0)", "delta": True}
    for codec in ("zstd", "topk(1.0)", "shuffle >> zstd", both):
        packed = run(grid_of(stepping(TARGETS, 0.3), 8, [CompressUpdates()]), compression=codec)
        np.testing.assert_allclose(packed["w"], plain["w"], rtol=1e-5, atol=1e-6)


def test_nodes_without_the_mod_take_part(caplog):
    asked, plain = (run(grid_of(stepping(TARGETS, 0.3), 8), **o) for o in ({"compression": "int8"}, {}))
    np.testing.assert_array_equal(asked["w"], plain["w"])
    told = [r.getMessage() for r in caplog.records if "CompressUpdates" in r.getMessage()]
    assert len(told) == 8  # once a node
    assert told[0].endswith("sends full weights: its app lacks the mod CompressUpdates")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ds"), st.floats(0, 1e6)), min_size=1, max_size=6), st.integers(0, 99)
)
def test_the_mean_of_sparse_and_dense_updates_is_that_of_dense_ones(kinds, seed):
    rng, one, other, total = np.random.default_rng(seed), StreamingMean(), StreamingMean(), 0.0
    for kind, weight in kinds:
        where = np.flatnonzero(rng.random(300) < 0.2)
        x = Sparse(where, rng.normal(size=len(where)).astype(np.float32), (30, 10))
        one.add({"w": x if kind == "s" else x.dense()}, weight, is_update=True)
        other.add({"w": x.dense()}, weight, is_update=True)
        total += weight
    if total > 0:
        base = {"w": rng.normal(size=(30, 10)).astype(np.float32)}
        np.testing.assert_allclose(one.result(base)["w"], other.result(base)["w"], rtol=1e-5, atol=1e-6)


def test_huge_and_lopsided_sparse_updates_do_not_overflow():
    for weights_of in ([1e-300, 1.0, 1e300], [1.0] * 2000, [1e300, 1.0, 1e-300]):
        mean = StreamingMean()
        for weight in weights_of:
            mean.add({"w": Sparse(np.array([1]), np.array([1e300]), (3,))}, weight, is_update=True)
        np.testing.assert_allclose(mean.result({"w": np.zeros(3)})["w"], [0, 1e300, 0])


def test_a_partial_array_counts_where_it_is():
    mean = StreamingMean()
    mean.add({"w": np.float32([1, 1, 1, 1])}, 1.0, is_update=True)
    mean.add({"w": Sparse(np.array([0, 1]), np.float32([4, 4]), (4,), partial=True)}, 2.0, is_update=True)
    mean.add({"w": Sparse(np.array([1, 2]), np.float32([2, 3]), (4,), partial=True)}, 1.0, is_update=True)
    np.testing.assert_allclose(mean.result({"w": np.zeros(4)})["w"], [3, 11 / 4, 2, 1])


def test_a_reply_in_a_codec_that_is_not_accepted_is_refused(tmp_path):
    grid = grid_of(stepping(TARGETS, 0.3), 2, [CompressUpdates("topk(0.1)")])
    how = {"up": "int8", "accept": ["int8"]}
    with pytest.raises(Exception, match="codec topk is not allowed, allowed are int8"):
        run(grid, compression=how, run_dir=tmp_path)
    assert events(tmp_path, "reply_refused")[0]["reason"] == "codec topk is not allowed, allowed are int8"


def test_inner_strategies_get_full_weights():
    for make in (lambda: FedAdam(eta=0.3), FedAvg):
        codec = {"up": "topk(1.0)", "down": "float16"}
        packed = run(grid_of(stepping(TARGETS, 0.3), 8, [CompressUpdates()]), compression=codec, inner=make())
        plain = run(grid_of(stepping(TARGETS, 0.3), 8), inner=make())
        np.testing.assert_allclose(packed["w"], plain["w"], atol=0.02)


def test_bytes_are_told_before_and_after(tmp_path):
    grid = grid_of(stepping(TARGETS, 0.02), 8, [CompressUpdates()])
    run(grid, compression={"up": "topk(0.05) >> int8", "down": "int8"}, run_dir=tmp_path)
    result = json.loads((tmp_path / "result.json").read_text())
    for row in result["rounds"]:
        assert row["bytes_up_full"] == row["bytes_down_full"] == 8 * (SIZE * 4 + 128)
        assert row["bytes_up"] < row["bytes_up_full"] / 20
    less = [row["bytes_down_full"] / row["bytes_down"] for row in result["rounds"]]
    assert less[0] == 1
    assert min(less[1:]) > 3.5
    assert result["bytes_up"] == sum(row["bytes_up"] for row in result["rounds"])


@pytest.mark.parametrize(
    "spec",
    [
        "fedprox(mu=0.1)",
        "fedpa",
        "fedasync",
        "fedbuff(k=3)",
        "fedcompass",
        "fedqueue(sync_s=5, safety_s=1)",
        "fednova",
        "hybrid(weighting=by_loss, selection=oort, refill=True, cutoff=first_k(3))",
    ],
)
def test_every_strategy_takes_compressed_updates(spec, tmp_path):
    metrics = {"num-examples": 1, "num-steps": 5, "train-s": 1.0, "train-loss": 1.0, "train-loss-rms": 1.0}

    def reply_of(partition, received):
        return {"w": received["w"] + np.float32(0.02) * (TARGETS[partition] - received["w"])}, metrics

    how = {"up": "topk(0.2) >> int8", "down": "topk(0.2)", "delta": True}
    strategy = parse(with_default(spec, "compression", how))
    strategy.record_as("r", tmp_path)
    grid = grid_of(reply_of, [1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 3.0, 9.0], [CompressUpdates()])
    result = strategy.start(grid, model(), num_rounds=20)
    assert distance(to_weights(result.arrays)) < 1
    assert events(tmp_path, "aggregated")
    assert not events(tmp_path, "reply_refused") + events(tmp_path, "reply_failed")
    told = json.loads((tmp_path / "result.json").read_text())
    assert told["bytes_up"] < told["bytes_up_full"] / 8
