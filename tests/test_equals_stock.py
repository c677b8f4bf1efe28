"""HybridStrategy joins the same replies to the same model as the Flower strategies that it stands for."""

import numpy as np
import pytest
from flwr.serverapp import strategy as flower
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from conftest import grid_of
from flower_hpc.compression import CompressUpdates
from flower_hpc.records import to_record, to_weights
from flower_hpc.strategies import FedAvg, HybridStrategy, WaitForAll

FLOATS = [np.float32, np.float64]
INTEGERS = [np.int8, np.uint8, np.int32, np.int64, np.uint64]


def elements(dtype):
    if np.issubdtype(dtype, np.floating):
        width = np.dtype(dtype).itemsize * 8
        # no subnormals: stock computes in the array's own dtype, where they lose their digits
        return st.floats(-1000, 1000, width=width, allow_subnormal=False).filter(
            lambda v: v == 0 or abs(v) > 1e-3
        )
    info = np.iinfo(dtype)
    return st.integers(int(info.min), int(info.max))


@st.composite
def federations(draw, dtypes):
    """A model (0-d, empty and higher shapes), what each of 1-20 nodes answers, and its weight."""
    shapes = draw(
        st.lists(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4), min_size=1, max_size=3)
    )
    kinds = [draw(st.sampled_from(dtypes)) for _ in shapes]
    clients = draw(st.integers(1, 20))

    def model():
        return {
            f"a{i}": draw(hnp.arrays(kind, shape, elements=elements(kind)))
            for i, (kind, shape) in enumerate(zip(kinds, shapes, strict=True))
        }

    examples = [draw(st.integers(1, 100_000)) for _ in range(clients)]
    return model(), [model() for _ in range(clients)], examples


def joined(strategy, start, answers, examples, mods=(), rounds=1):
    def reply_of(partition, received):
        return answers[partition], {"num-examples": examples[partition], "train_loss": 1.0 + partition}

    grid = grid_of(reply_of, len(answers), mods)
    result = strategy.start(grid, to_record(start), num_rounds=rounds)
    return to_weights(result.arrays), result


def stock(kind=flower.FedAvg, **options):
    return kind(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1, **options)


def ours(**options):
    return HybridStrategy(min_nodes=1, fraction_evaluate=0.0, **options)


@settings(max_examples=60, deadline=None)
@given(federations(FLOATS))
def test_floats_equal_flowers_fedavg(case):
    expected, theirs = joined(stock(), *case)
    got, mine = joined(ours(), *case)
    for name, array in expected.items():
        assert got[name].dtype == case[0][name].dtype
        assert got[name].shape == array.shape
        largest = max(abs(answer[name]).max(initial=0) for answer in case[1])
        np.testing.assert_allclose(got[name], array, rtol=1e-5, atol=1e-6 * largest)
    assert mine.train_metrics_clientapp[1]["train_loss"] == pytest.approx(
        theirs.train_metrics_clientapp[1]["train_loss"]
    )


@settings(max_examples=40, deadline=None)
@given(federations([np.float16]))
def test_float16_is_within_two_ulp_of_the_float64_mean(case):
    start, answers, examples = case
    got, _ = joined(ours(), start, answers, examples)
    for name in start:
        mean = np.average([a[name].astype(np.float64) for a in answers], axis=0, weights=examples)
        error = np.abs(got[name].astype(np.float64) - mean)
        assert (error <= 2 * np.spacing(np.abs(mean).astype(np.float16)).astype(np.float64)).all()
        assert got[name].dtype == np.float16


@settings(max_examples=40, deadline=None)
@given(federations(INTEGERS))
def test_integers_are_the_rounded_float64_mean_in_their_own_dtype(case):
    start, answers, examples = case
    got, _ = joined(ours(), start, answers, examples)
    for name, like in start.items():
        assert got[name].dtype == like.dtype
        mean = np.average([a[name].astype(np.float64) for a in answers], axis=0, weights=examples)
        spread = np.maximum(1, np.abs(mean) * 1e-12)  # float64 itself is that coarse for large int64
        assert (np.abs(got[name].astype(np.float64) - mean) <= 0.5 + spread).all()


def test_a_halfway_integer_is_rounded_to_even():
    answers = [{"n": np.int64(v).reshape(())} for v in (1, 2)]
    got, _ = joined(ours(), {"n": np.asarray(0)}, answers, [1, 1])
    assert got["n"] == 2
    assert got["n"].shape == ()


@settings(max_examples=30, deadline=None)
@given(federations([np.float64]))
def test_updates_on_the_wire_give_the_same_model_as_weights(case):
    plain, _ = joined(ours(), *case)
    packed, _ = joined(ours(), *case, mods=[CompressUpdates()])
    for name, array in plain.items():
        np.testing.assert_allclose(packed[name], array, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "make",
    [
        lambda: stock(),
        lambda: stock(flower.FedAdam, eta=0.1),
        lambda: stock(flower.FedYogi, eta=0.1),
        lambda: stock(flower.FedMedian),
        lambda: stock(flower.FedTrimmedAvg, beta=0.2),
        lambda: stock(flower.Krum, num_malicious_nodes=1),
        lambda: stock(flower.QFedAvg, client_learning_rate=0.1),
    ],
    ids=["FedAvg", "FedAdam", "FedYogi", "FedMedian", "FedTrimmedAvg", "Krum", "QFedAvg"],
)
@pytest.mark.parametrize("mods", [(), (CompressUpdates(),)], ids=["weights", "updates"])
def test_inner_strategy_equals_itself_alone(make, mods):
    rng = np.random.default_rng(3)
    start = {"w": rng.normal(size=(4, 3)).astype(np.float32), "b": rng.normal(size=2)}
    answers = [{k: x + rng.normal(size=x.shape).astype(x.dtype) for k, x in start.items()} for _ in range(6)]
    examples = [3, 1, 4, 1, 5, 9]
    expected, _ = joined(make(), start, answers, examples, rounds=3)
    got, _ = joined(ours(inner=make()), start, answers, examples, mods=mods, rounds=3)
    for name, array in expected.items():
        np.testing.assert_allclose(got[name], array, rtol=1e-5, atol=1e-6)


def test_the_presets_are_the_loop():
    assert FedAvg().settings.cutoff == WaitForAll()
    assert isinstance(FedAvg(), HybridStrategy)
