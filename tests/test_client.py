"""The client's half: budgets end work, FedNova counts it, SCAFFOLD corrects it."""

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from safetensors.numpy import save

from conftest import make_app, stepping, weights
from flower_hpc import protocol
from flower_hpc.client import Budget, Control, budget_of, effective_steps
from flower_hpc.clock import VirtualClock
from flower_hpc.errors import ConfigError, ReplyError
from flower_hpc.records import from_bytes, subtract, to_bytes, to_record, to_weights
from flower_hpc.transport import InProcessGrid


@pytest.fixture(autouse=True)
def _identity(monkeypatch):
    monkeypatch.delenv(protocol.NODE_STATE_ENV, raising=False)
    InProcessGrid(make_app(stepping([0])), 1)  # says who we are, so that messages can be made here


def message(config=None, arrays=None):
    content = {"arrays": arrays or weights(), "config": ConfigRecord(config or {})}
    return Message(RecordDict(content), 1, "train")


def context():
    return Context(1, 1, {}, RecordDict(), {})


# budget


def test_a_loop_while_time_is_left_ends():
    clock, rounds = VirtualClock(), 0
    budget = Budget(10, clock.now(), clock)
    while budget.left():
        clock.sleep(3)
        rounds += 1
    assert rounds == 4
    assert budget.left() == 0.0
    assert budget.spent()


def test_a_stop_file_ends_even_an_endless_budget_and_is_looked_for_seldom(tmp_path, monkeypatch):
    monkeypatch.setenv(protocol.NODE_STATE_ENV, str(tmp_path))
    clock = VirtualClock()
    budget = budget_of(message(), clock)
    assert budget.left() == float("inf")
    (tmp_path / "stop").touch()
    clock.sleep(0.2)
    assert budget.left() == float("inf")
    clock.sleep(0.05)
    assert budget.left() == 0.0
    (tmp_path / "stop").unlink()
    clock.sleep(1)
    assert budget.spent()


@pytest.mark.parametrize(
    ("config", "steps"),
    [
        ({}, 40),
        ({protocol.LOCAL_STEPS: 7}, 7),
        ({protocol.LOCAL_STEPS: 100}, 100),
        ({protocol.MAX_STEPS: 7}, 7),
        ({protocol.MAX_STEPS: 100}, 40),
        ({protocol.LOCAL_STEPS: 0, protocol.MAX_STEPS: -3}, 40),
        ({protocol.LOCAL_STEPS: 2.5, protocol.MAX_STEPS: "5"}, 40),
        ({protocol.LOCAL_STEPS: True}, 40),
    ],
)
def test_the_server_sets_or_bounds_the_steps_and_nonsense_is_ignored(config, steps):
    assert budget_of(message(config)).steps(40) == steps


def test_at_least_one_step_is_done():
    assert budget_of(message()).steps(0) == 1


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), "2", True])
def test_a_learning_rate_factor_that_makes_no_sense_counts_as_one(value):
    assert budget_of(message({protocol.LR_FACTOR: value})).lr_factor == 1.0
    assert budget_of(message({protocol.LR_FACTOR: 0.5})).lr_factor == 0.5


# FedNova


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("steps", [0, 1, 2, 17])
def test_effective_steps_are_how_far_constant_gradients_move_a_weight(steps, momentum):
    w = velocity = 0.0
    for _ in range(steps):
        velocity = momentum * velocity + 1.0
        w -= velocity
    assert effective_steps(steps, momentum) == pytest.approx(-w)


def test_steps_and_momentum_out_of_range_are_refused():
    with pytest.raises(ConfigError, match=r"momentum must be in \[0, 1\), got 1.0"):
        effective_steps(1, 1.0)
    with pytest.raises(ConfigError, match="steps must be >= 0, got -1"):
        effective_steps(-1)


# SCAFFOLD


def model(**arrays):
    return {k: np.asarray(x, np.float32) for k, x in arrays.items()}


def control_message(server, arrays=None):
    arrays = server if arrays is None else arrays
    return message({protocol.CONTROL: to_bytes(server)}, arrays=to_record(arrays))


def test_without_a_control_variate_there_is_no_correction():
    assert Control.of(message(), context()) is None


def test_a_first_control_is_the_mean_gradient_that_training_followed():
    x, gradient, lr, steps = model(w=[1, 2], b=3), model(w=[0.5, -1], b=2), 0.1, 4
    y = {k: (x[k] - lr * steps * gradient[k]).astype(np.float32) for k in x}
    zero, kept = {k: np.zeros_like(v) for k, v in x.items()}, context()
    control = Control.of(control_message(zero, x), kept)
    assert all((c == 0).all() for c in control.correction.values())
    control.update(x, y, np.float64(lr), steps)
    own = to_weights(kept.state[protocol.CONTROL])
    for k in x:
        np.testing.assert_allclose(own[k], gradient[k], rtol=1e-5)
        assert own[k].dtype == np.float32


def test_the_change_is_the_difference_of_controls_and_the_next_correction_uses_both():
    x, y, c = model(w=[1, 2]), model(w=[0, 5]), model(w=[0.25, -0.5])
    kept = context()
    for _ in range(2):
        before = kept.state.array_records.get(protocol.CONTROL, to_record(model(w=[0, 0])))
        control = Control.of(control_message(c, x), kept)
        np.testing.assert_allclose(control.correction["w"], c["w"] - to_weights(before)["w"])
        control.update(x, y, 0.5, 2)
        reply = Message(RecordDict({"arrays": to_record(y)}), reply_to=message())
        control.attach(reply)
        change = from_bytes(reply.content[protocol.CONTROL][protocol.CONTROL], x)
        after = to_weights(kept.state[protocol.CONTROL])
        np.testing.assert_allclose(change["w"], subtract(after, to_weights(before))["w"], rtol=1e-6)
        np.testing.assert_allclose(
            after["w"], to_weights(before)["w"] - c["w"] + (x["w"] - y["w"]), rtol=1e-6
        )


def test_controls_cancel_the_drift_of_unlike_nodes():
    # two nodes pull a weight apart with unlike curvature: FedAvg stops elsewhere, SCAFFOLD at the optimum
    curvature, target, lr, steps = (1.0, 4.0), (-1.0, 1.0), 0.1, 5
    optimum = sum(a * t for a, t in zip(curvature, target, strict=True)) / sum(curvature)

    def train(scaffold):
        x, c = model(w=[0.0]), model(w=[0.0])
        nodes = [context(), context()]
        for _ in range(200):
            ends, changes = [], []
            for a, t, node in zip(curvature, target, nodes, strict=True):
                control, y = Control.of(control_message(c, x), node), x["w"].copy()
                for _ in range(steps):
                    y = y - lr * (a * (y - t) + (control.correction["w"] if scaffold else 0))
                control.update(x, model(w=y), lr, steps)
                control.attach(reply := Message(RecordDict(), reply_to=message()))
                changes.append(from_bytes(reply.content[protocol.CONTROL][protocol.CONTROL], x)["w"])
                ends.append(y)
            x, c = model(w=np.mean(ends, 0)), model(w=c["w"] + np.mean(changes, 0))
        return float(x["w"][0])

    assert train(scaffold=True) == pytest.approx(optimum, abs=1e-4)
    assert abs(train(scaffold=False) - optimum) > 0.1


def test_counters_have_no_control_and_a_diverged_training_is_not_kept():
    x = model(w=[1, 2]) | {"n": np.array(3)}
    kept = context()
    control = Control.of(control_message(model(w=[0, 0]), x), kept)
    assert list(control.correction) == ["w"]
    control.update(x, x | model(w=[np.nan, 0]), 0.1, 1)
    assert protocol.CONTROL not in kept.state


@pytest.mark.parametrize("data", [b"", b"x" * 50, 3, to_bytes(model(v=[0, 0])), to_bytes(model(w=[0]))])
def test_a_control_that_does_not_fit_the_model_is_refused_in_one_line(data):
    asked = message({protocol.CONTROL: data}, arrays=to_record(model(w=[1, 2])))
    with pytest.raises(ConfigError, match=r"^flower-hpc.control must hold the server's control.*") as error:
        Control.of(asked, context())
    assert "\n" not in str(error.value)


def test_updates_out_of_order_or_of_no_steps_are_refused():
    x = model(w=[1, 2])
    control = Control.of(control_message(x), context())
    with pytest.raises(ConfigError, match="update must come before attach"):
        control.attach(Message(RecordDict(), reply_to=message()))
    with pytest.raises(ConfigError, match=r"lr and effective_steps must be > 0, got 0\.1 and 0"):
        control.update(x, x, 0.1, 0)


def test_bytes_of_arrays_come_back_whatever_their_layout():
    arrays = model(w=np.arange(6).reshape(2, 3), s=1.5, e=np.zeros((0, 2))) | {"d": np.ones(2)}
    arrays["w"] = np.asfortranarray(arrays["w"])[:, ::-1]
    back = from_bytes(to_bytes(arrays), arrays)
    assert list(back) == list(arrays)
    for k, x in arrays.items():
        assert (back[k].dtype, back[k].shape) == (x.dtype, x.shape)
        np.testing.assert_array_equal(back[k], x)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", "no safetensors"),
        (save(model(v=[1])), "other arrays: v, w"),
        (save(model(w=[1, 2])), r"'w' must be float32 \(1,\), got float32 \(2,\)"),
        (save({"w": np.ones(1)}), "got float64"),
        (save(model(w=[np.inf])), "'w' must be finite"),
        (save(model(w=[1]))[:-1], "no safetensors"),
    ],
)
def test_bytes_of_other_arrays_are_refused(data, line):
    with pytest.raises(ReplyError, match=line):
        from_bytes(data, model(w=[0]))


def test_the_record_of_a_control_is_no_model():
    reply = Message(RecordDict({"arrays": weights()}), reply_to=message())
    control = Control.of(control_message(model(w=[0, 0])), context())
    control.update(model(w=[0, 0]), model(w=[1, 1]), 0.1, 1)
    control.attach(reply)
    assert [type(r) for r in reply.content.values()] == [ArrayRecord, ConfigRecord]
