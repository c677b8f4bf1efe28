"""Smaller models are parts of the full one, and both sides know which."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from flower_hpc.compression.dropout import ORDERS, layout, sub_shapes, take, where
from flower_hpc.errors import ConfigError
from flower_hpc.tasks import TASKS, TaskOptions, Training, load
from flower_hpc.tasks.images import Images
from flower_hpc.tasks.models import groups
from flower_hpc.tasks.perceptron import forward
from flower_hpc.tasks.shakespeare import CHARACTERS, WINDOW, Windows
from flower_hpc.tasks.torch_task import TorchTask

SIDES = {"cifar10": 32, "medmnist": 28, "digits": 8}
MODELS = [(name, model) for name, info in TASKS.items() for model in info.models]
WIDTHS = (0.1, 0.25, 0.3, 0.5, 0.75, 1)
MLP = {"a.weight": (6, 5), "a.bias": (6,), "b.weight": (3, 6), "b.bias": (3,)}


def shapes_of(weights):
    return {k: x.shape for k, x in weights.items()}


def places(full, rate, order="random", round=3, node="n1"):
    return where(full, sub_shapes(full, rate), order, run="r", round=round, node=node)


def examples_of(name, model_weights, count=8):
    """Examples of the right shape; what they show is no matter here."""
    rng = np.random.default_rng(0)
    if name == "shakespeare":
        text = rng.integers(0, len(CHARACTERS), WINDOW + count + 1).astype(np.uint8)
        return Windows(text, np.arange(count), np.zeros(count, np.int64))
    channels = 1 if name == "digits" else next(iter(model_weights.values())).shape[1]
    pixels = rng.integers(0, 256, (count, channels, SIDES[name], SIDES[name])).astype(np.uint8)
    labels = rng.integers(0, 2, count)
    return Images(pixels, labels, labels, ((0.5,) * channels, (0.25,) * channels))


def outputs(task, weights, width, x):
    """What a model of these weights says, in evaluation."""
    model = task.build_model(width)
    task.set_weights(model, weights)
    if isinstance(model, dict):
        return forward(model, x.reshape(len(x), -1))[1]
    with torch.no_grad():
        return model.eval()(torch.from_numpy(x)).numpy()


def put(weights, part, kept):
    for name, indices in kept.items():
        weights[name][np.ix_(*indices)] = part[name]


@pytest.mark.parametrize(("name", "model"), MODELS)
def test_a_model_at_a_width_has_the_shapes_that_a_server_reads_off_the_full_ones(name, model):
    datasets = ("pneumoniamnist", "pathmnist") if name == "medmnist" else ("",)
    for dataset in datasets:
        task = load(TaskOptions(task=name, model=model, dataset=dataset))
        full = shapes_of(task.weights(task.build_model()))
        for width in WIDTHS:
            built = shapes_of(task.weights(task.build_model(width)))
            assert built == sub_shapes(full, width)
            assert list(built) == list(full)


@pytest.mark.parametrize(("name", "model"), MODELS)
def test_a_part_of_a_model_trains_and_evaluates(name, model):
    task = load(TaskOptions(task=name, model=model))
    weights = task.weights(task.build_model())
    examples, kept = examples_of(name, weights), places(shapes_of(weights), 0.1)
    part, small = take(weights, kept), task.build_model(0.1)
    task.set_weights(small, part)
    metrics = task.train(small, examples, Training(lr=0.01, steps=1))
    assert metrics["num-steps"] == 1
    trained = task.weights(small)
    assert shapes_of(trained) == shapes_of(part)
    assert any(not np.array_equal(trained[k], part[k]) for k in part)
    assert np.isfinite(task.evaluate(small, examples)["loss"])


@pytest.mark.parametrize(("name", "model"), MODELS)
@pytest.mark.parametrize("order", ORDERS)
def test_a_part_says_what_the_full_model_says_with_all_else_zero(name, model, order):
    if model == "cnn" and order != "ordered":
        pytest.skip("GroupNorm's groups are of neighbours: only the first units keep theirs")
    task = load(TaskOptions(task=name, model=model))
    weights = task.weights(task.build_model())
    x, _ = examples_of(name, weights)[[0, 1]]
    for rate in (0.25, 0.5):
        kept = places(shapes_of(weights), rate, order)
        part, rest = take(weights, kept), {k: np.zeros_like(v) for k, v in weights.items()}
        put(rest, part, kept)
        np.testing.assert_allclose(outputs(task, part, rate, x), outputs(task, rest, 1, x), atol=1e-5)


def test_the_full_width_is_the_default_and_another_is_refused():
    for name in ("digits", "shakespeare"):
        task = load(TaskOptions(task=name))
        full, same = (task.weights(task.build_model(*args)) for args in ((), (1,)))
        assert all(np.array_equal(full[k], same[k]) for k in full)
        for width in (0, -0.5, 1.01, float("nan")):
            with pytest.raises(ConfigError, match=r"width must be in \(0, 1\], got"):
                task.build_model(width)
            with pytest.raises(ConfigError, match=r"rate must be in \(0, 1\], got"):
                sub_shapes(MLP, width)


def test_a_task_of_ones_own_may_have_one_width():
    class Own(TorchTask):
        def _build(self):
            return nn.Linear(2, 2)

        def _load(self, train):
            raise AssertionError("no data is needed here")

    assert Own(TaskOptions()).build_model(1).out_features == 2
    with pytest.raises(ConfigError, match="the model of Own has width 1 only"):
        Own(TaskOptions()).build_model(0.5)


def test_groups_have_the_full_models_size_where_it_fits():
    assert [groups(n, 4) for n in (32, 16, 8, 4, 3, 10, 29)] == [8, 4, 2, 1, 1, 5, 29]


def test_everything_taken_is_the_model_and_what_is_put_back_is_where_it_was():
    rng = np.random.default_rng(0)
    weights = {k: rng.normal(size=s) for k, s in MLP.items()} | {"steps": np.array(7)}
    full = shapes_of(weights)
    for order in ORDERS:
        whole = take(weights, places(full, 1, order))
        assert all(np.array_equal(whole[k], x) for k, x in weights.items())
        kept = places(full, 0.5, order)
        part, before = take(weights, kept), {k: x.copy() for k, x in weights.items()}
        assert shapes_of(part) == sub_shapes(full, 0.5)
        assert all(x.flags.c_contiguous and not np.shares_memory(x, weights[k]) for k, x in part.items())
        put(weights, part, kept)
        assert all(np.array_equal(weights[k], x) for k, x in before.items())


def test_each_coordinate_is_the_mean_over_those_who_had_it():
    full = {k: np.zeros(s) for k, s in MLP.items()}
    total, count = ({k: np.zeros(s) for k, s in MLP.items()} for _ in range(2))
    for rate, value in ((1, 4.0), (0.5, 2.0)):
        kept = places(MLP, rate, "ordered")
        for k, x in take(full, kept).items():
            total[k][np.ix_(*kept[k])] += x + value
            count[k][np.ix_(*kept[k])] += 1
    mean = {k: total[k] / count[k] for k in full}
    assert mean["a.bias"].tolist() == [3, 3, 3, 4, 4, 4]
    assert mean["b.weight"].tolist() == [[3, 3, 3, 4, 4, 4]] * 3
    assert mean["b.bias"].tolist() == [3, 3, 3]


def test_orders_keep_the_first_a_rolling_window_or_a_draw():
    def hidden(order, round=1, node="n1", rate=0.5):
        return places(MLP, rate, order, round, node)["a.bias"][0].tolist()

    assert hidden("ordered", 5) == [0, 1, 2]
    windows = [hidden("rolling", n, f"n{n}") for n in (1, 2, 5, 7)]
    assert windows == [[0, 1, 2], [1, 2, 3], [0, 4, 5], [0, 1, 2]]
    assert hidden("random") == hidden("random")
    draws = [hidden("random", n, node) for n in range(200) for node in ("a", "b")]
    counts = Counter(i for draw in draws for i in draw)
    assert all(150 < counts[i] < 250 for i in range(6))
    assert len({tuple(draw) for draw in draws}) == 20  # every choice of 3 of 6
    assert all(draw == sorted(draw) for draw in draws)
    # on every machine and with every version
    assert hidden("random") == [0, 2, 3]


def test_units_that_are_added_up_are_the_same_ones():
    task = load(TaskOptions(task="cifar10", model="resnet18"))
    kept = places(shapes_of(task.weights(task.build_model())), 0.5)
    out, beside = kept["layer2.0.conv2.weight"][0], kept["layer2.0.downsample.0.weight"][0]
    assert out.tolist() == beside.tolist() == kept["layer2.1.conv1.weight"][1].tolist()
    assert out.tolist() == kept["layer2.0.bn2.running_var"][0].tolist() != list(range(64))
    assert kept["conv1.weight"][1].tolist() == [0, 1, 2]
    assert kept["fc.bias"][0].tolist() == list(range(10))


def test_a_flattened_image_keeps_channels_and_gates_keep_the_same_units():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 9, 2))
    full = {k: tuple(x.shape) for k, x in net.state_dict().items()}
    kept = places(full, 0.5)
    channels = kept["0.weight"][0]
    assert kept["2.weight"][1].tolist() == [9 * c + i for c in channels for i in range(9)]
    for cell, gates in ((nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)):
        net = nn.ModuleDict({"cell": cell(5, 6), "out": nn.Linear(6, 2)})
        full = {k: tuple(x.shape) for k, x in net.state_dict().items()}
        kept = places(full, 0.5)
        units = kept["cell.weight_hh_l0"][1]
        expected = [6 * gate + unit for gate in range(gates) for unit in units]
        assert kept["cell.bias_hh_l0"][0].tolist() == kept["cell.weight_ih_l0"][0].tolist() == expected
        assert kept["cell.weight_ih_l0"][1].tolist() == list(range(5))


def test_other_layouts_that_are_understood():
    depthwise = {"a": (8, 3, 3, 3), "b": (8, 1, 3, 3), "c": (16, 8, 1, 1), "d": (10, 16)}
    assert list(sub_shapes(depthwise, 0.5).values()) == [(4, 3, 3, 3), (4, 1, 3, 3), (8, 4, 1, 1), (10, 8)]
    embedded = {"a": (9, 4), "b": (4,), "c": (6, 4), "d": (6,), "e": (9, 6), "n": ()}
    assert list(sub_shapes(embedded, 0.5).values()) == [(9, 2), (2,), (3, 2), (3,), (9, 3), ()]
    assert sub_shapes({"norm": (5,), **MLP}, 0.5)["norm"] == (5,)
    assert sub_shapes({"w": (4, 5), "b": (4,)}, 0.1) == {"w": (4, 5), "b": (4,)}
    square = {"a": (8, 8), "ab": (8,), "c": (3, 8), "cb": (3,)}
    assert sub_shapes(square, 0.5)["a"] == (4, 8)
    turned = {"a": (8, 8), "ab": (8,), "c": (8, 3), "cb": (3,)}
    assert sub_shapes(turned, 0.5)["a"] == (8, 4)


@pytest.mark.parametrize(
    ("shapes", "array"),
    [
        ({"w": (3,)}, "w"),
        ({"a": (8, 3, 3, 3), "cat": (8, 11, 3, 3), "c": (2, 8)}, "cat"),
        ({"a": (8, 3, 3, 3), "grouped": (8, 4, 3, 3), "c": (2, 8)}, "grouped"),
        ({"a": (8, 3), "in_proj_weight": (24, 8), "c": (2, 8)}, "in_proj_weight"),
        ({"a": (8, 3), "attn.q": (8, 8), "c": (2, 8)}, "attn.q"),
        ({"weight_ih": (24, 3), "weight_hh": (24, 6), "weight_ih_reverse": (24, 3)}, "weight_ih_reverse"),
        ({"weight_ih_l0": (24, 3), "weight_hh_l0": (24, 6)}, "weight_hh_l0"),
        ({"weight_ih": (25, 3), "weight_hh": (25, 6), "c": (2, 6)}, "weight_ih"),
        ({"a": (8, 3), "bias": (7,), "c": (2, 8)}, "bias"),
        ({"a": (8, 3), "head1": (4, 8), "head2": (2, 8)}, "head2"),
        ({"a": (8, 3), "empty": (0, 8), "c": (2, 0)}, "empty"),
        ({"a": (8, 8), "ab": (8,), "c": (8, 8), "cb": (8,)}, "a"),
        ({"a": (8, 8), "c": (3, 8)}, "a"),
    ],
)
def test_a_layout_that_is_not_understood_is_refused_in_one_line(shapes, array):
    with pytest.raises(ConfigError, match=f"dropout cannot tell .* array '{array}' of shape") as error:
        layout(shapes)
    assert "\n" not in str(error.value)


def test_places_of_what_is_no_part_are_refused():
    for change in ({"a.bias": (7,)}, {"b.bias": (2,)}, {"b.weight": (3,)}, {"a.bias": (0,)}):
        with pytest.raises(ConfigError, match="has no part of shape"):
            where(MLP, MLP | change, "ordered", run="r", round=1, node="n")
    with pytest.raises(ConfigError, match=r"has the same arrays, not so b\.bias"):
        where(MLP, {k: s for k, s in MLP.items() if k != "b.bias"}, "ordered", run="r", round=1, node="n")
    with pytest.raises(ConfigError, match="order must be one of ordered, rolling, random, got 'best'"):
        places(MLP, 0.5, "best")
