"""What an update counts: convex, bounded, by its age from its own base, unbiased where it is asked for."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
from flwr.app import MetricRecord
from flwr.serverapp import strategy as flower
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import grid_of, stepping, weights
from flower_hpc import strategies as ours
from flower_hpc.compression import CompressUpdates
from flower_hpc.errors import ConfigError, RunError
from flower_hpc.protocol import GRADIENT_VARIANCE, TRAIN_LOSS
from flower_hpc.records import to_weights
from flower_hpc.strategies import ByExamples, ByGradientVariance, ByLoss, Constant, Discard, Polynomial
from flower_hpc.strategies.loop.join import Averaged, Part
from flower_hpc.strategies.loop.replies import Reply
from flower_hpc.strategies.weighting import Usual
from flower_hpc.telemetry import read_events
from flower_hpc.transport import InProcessNode
from processes import named

BOTH_FORMS = pytest.mark.parametrize("mods", [(), (CompressUpdates(),)], ids=["weights", "updates"])


def trained(strategy, grid, rounds=1, timeout=1e6):
    result = strategy.start(grid, weights(), num_rounds=rounds, timeout=timeout)
    return to_weights(result.arrays)["w"]


PART = st.tuples(st.floats(1e-3, 1e6), st.integers(0, 20), st.floats(0.05, 1), st.booleans())
PARTS = st.lists(PART, min_size=1, max_size=8)


def join(current, updates, parts, **options):
    """The new model from updates against bases of their own, each as an update or as weights."""
    batch = Averaged("num-examples", **options)
    for i, (update, (count, tau, inclusion, is_update)) in enumerate(zip(updates, parts, strict=True)):
        base = current if tau == 0 else current - (i + 1.0)
        reply = Reply({"w": update if is_update else base + update}, is_update, count, MetricRecord({}))
        part = Part(count / inclusion, Polynomial().weight(tau))
        batch.add(None, reply, part, {"w": current}, {"w": base} if tau else None)
    record, _ = batch.join(1, {"w": current})
    return to_weights(record)["w"]


@settings(max_examples=100, deadline=None)
@given(PARTS, st.floats(0.01, 1), st.booleans(), st.lists(st.floats(-10, 10), min_size=9, max_size=9))
def test_the_new_model_is_a_convex_combination_of_the_old_and_the_updated_ones(parts, lr, damped, values):
    current, *updates = (np.array([x]) for x in values[: len(parts) + 1])
    new = join(current, updates, parts, lr=lr, damped=damped)
    ends = [current, *(current + d for d in updates)]
    assert min(ends) - 1e-9 <= new <= max(ends) + 1e-9
    # reply i updates coordinate i alone: the new model is the list of coefficients
    units = list(np.eye(len(parts)))
    share = join(np.zeros(len(parts)), units, parts, lr=lr, damped=damped)
    worth = np.array([c / q * (1 + tau) ** -0.5 for c, tau, q, _ in parts])
    over = sum(c / q for c, _, q, _ in parts) if damped else worth.sum()
    np.testing.assert_allclose(share, lr * worth / over, rtol=1e-9, atol=1e-12)
    assert min(share) >= 0
    assert share.sum() <= lr + 1e-9


def metrics(examples=1, **more):
    return MetricRecord({"num-examples": examples} | {k.replace("_", "-"): v for k, v in more.items()})


WEIGHTINGS = [ByLoss, ByGradientVariance, ByExamples]


@settings(deadline=None)
@given(st.sampled_from(WEIGHTINGS), st.floats(1, 100), st.floats(1e-6, 1e6), st.data())
def test_the_weights_of_a_round_are_within_their_ratio(kind, ratio, usual, data):
    reported = st.tuples(st.integers(1, 10**6), st.floats(0, 100), st.floats(0, 1e6))
    many = data.draw(st.lists(reported, min_size=1, max_size=8))
    weighting, known = kind(max_ratio=ratio), Usual(usual, {TRAIN_LOSS: 1.0})
    found = [weighting.weight(metrics(n, train_loss=x, gradient_variance=v), known) for n, x, v in many]
    assert max(found) <= min(found) * ratio * (1 + 1e-9)
    assert weighting.weight(metrics(0, train_loss=1.0, gradient_variance=1.0), known) == 0


def test_the_loss_weighs_as_its_sign_says():
    known = Usual(None, {TRAIN_LOSS: 2.0})
    low, high = metrics(3, train_loss=1.0), metrics(3, train_loss=4.0)
    assert ByLoss(1.0).weight(high, known) == pytest.approx(3 * math.exp(2))
    assert ByLoss(1.0).weight(high, known) > ByLoss(1.0).weight(low, known)
    assert ByLoss(-1.0).weight(high, known) < ByLoss(-1.0).weight(low, known)
    assert ByLoss(0.0).weight(high, known) == ByLoss(0.0).weight(low, known) == 3
    usual = Usual(None, {GRADIENT_VARIANCE: 1.0})
    assert ByGradientVariance(1e-8).weight(metrics(6, gradient_variance=2.0), usual) == pytest.approx(3)


@pytest.mark.parametrize(("name", "base"), [("train-loss", 10.0), ("other", 60.0)])
def test_losses_weigh_by_their_distance_from_the_mean_whatever_the_first_round_was(name, base):
    def reply_of(partition, received):
        return {"w": np.full(3, float(partition))}, {"num-examples": 1, name: base + partition}

    strategy = ours.HybridStrategy(weighting=ByLoss(loss=name), fraction_evaluate=0.0)
    np.testing.assert_allclose(trained(strategy, grid_of(reply_of, 2), rounds=3), math.e / (1 + math.e))


def test_a_round_of_empty_replies_does_not_make_the_next_ones_worth_nothing():
    asked = []

    def reply_of(partition, received):
        asked.append(partition)
        return {"w": np.ones(3)}, {"num-examples": 0 if len(asked) <= 2 else 5, "train-loss": 1.0}

    strategy = ours.HybridStrategy(weighting=ByLoss(), fraction_evaluate=0.0, max_failed_rounds=5)
    np.testing.assert_allclose(trained(strategy, grid_of(reply_of, 2), rounds=3), 1)


@pytest.mark.parametrize("reported", [{"num-examples": 1e200}, {"num-examples": 1e-200}], ids=named)
def test_no_number_that_nodes_report_ends_the_run(reported):
    def reply_of(partition, received):
        return {"w": np.ones(3)}, reported if partition == 0 else {"num-examples": 1}

    grid = grid_of(reply_of, 2)
    np.testing.assert_allclose(trained(ours.HybridStrategy(fraction_evaluate=0.0), grid), 1)


@BOTH_FORMS
def test_a_buffer_of_fresh_updates_is_fedavg(mods):
    def reply_of(partition, received):
        step = np.array([0.1, 1.7, -3.0]) * (partition + 1)
        return {"w": received["w"] + step}, {"num-examples": partition + 1}

    found = [trained(s, grid_of(reply_of, 5, mods), rounds=3) for s in (ours.FedBuff(k=5), ours.FedAvg())]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-12)


@BOTH_FORMS
def test_a_stale_update_in_a_buffer_counts_from_its_own_base(mods):
    # n0 answers 1 every 4 s, n1 answers 8 after 10 s, begun at 0, when the model is 1 and 2 versions older
    w = trained(ours.FedBuff(k=1), grid_of(stepping([1.0, 8.0]), [4, 10], mods), rounds=3)
    np.testing.assert_allclose(w, 1 + 3**-0.5 * (8 - 0))


@BOTH_FORMS
def test_fedasync_mixes_each_fresh_model_by_alpha(mods):
    strategy = ours.FedAsync(alpha=0.6, min_nodes=1)
    w = trained(strategy, grid_of(stepping([1.0]), 1, mods), rounds=3)
    np.testing.assert_allclose(w, 1 - 0.4**3)


@BOTH_FORMS
def test_fedasync_mixes_a_stale_model_as_the_model_that_it_is(mods):
    # replies: n0 at 4 and 8 s, each fresh; n1 at 10 s, two versions old
    w = 0.6 + 0.4 * 0.6  # after n0's two answers of 1
    worth = 0.6 * 3**-0.5
    found = [
        trained(ours.FedAsync(mix=mix), grid_of(stepping([1.0, 8.0]), [4, 10], mods), rounds=3)[0]
        for mix in ("models", "updates")
    ]
    assert found == pytest.approx([(1 - worth) * w + worth * 8, w + worth * (8 - 0)])


def test_fedasync_makes_a_model_of_every_reply_though_two_come_at_once(tmp_path):
    trained(ours.FedAsync(run_dir=tmp_path), grid_of(stepping([1.0, 1.0]), [2, 2]), rounds=4)
    events = read_events(tmp_path / "events.jsonl")
    assert [e["replies"] for e in events if e["event"] == "aggregated"] == [1, 1, 1, 1]


def test_a_node_without_examples_does_not_end_a_run_whose_others_take_their_time():
    def reply_of(partition, received):
        return {"w": np.ones(3)}, {"num-examples": partition}

    assert trained(ours.FedAsync(alpha=1.0), grid_of(reply_of, [1, 50]), rounds=9) == pytest.approx(1)


@BOTH_FORMS
@pytest.mark.parametrize("steps", [[4, 4, 4], [2, 5, 10]], ids=named)
def test_fednova_is_fedavg_where_all_do_equal_steps_else_its_equation_8(mods, steps):
    p, a, d = np.array([1, 2, 3]) / 6, np.array(steps), np.array([3.0, -1.0, 5.0])

    def reply_of(i, received):
        return {"w": received["w"] + d[i]}, {"num-examples": i + 1, "num-steps": steps[i]}

    kinds = ours.FedNova, ours.FedAvg
    nova, plain = (trained(k(fraction_evaluate=0.0), grid_of(reply_of, 3, mods)) for k in kinds)
    np.testing.assert_allclose(nova, (p * a).sum() * (p * d / a).sum())
    assert np.allclose(nova, plain) == (steps == [4, 4, 4])


def test_nodes_that_are_late_half_of_the_time_count_double_with_inverse_inclusion():
    # n00-n09 are always on time and answer 0; the others answer 1, in turns on time and late, but are idle
    # again once those have evaluated: without correction they have a third of the say
    def seconds(i, message):
        late = i >= 10 and (int(message.metadata.group_id) + i) % 2 == 0
        return 3.0 if message.metadata.message_type != "train" else 12.0 if late else 8.0

    def share(inclusion):
        nodes = [InProcessNode(f"n{i:02}", partial(seconds, i)) for i in range(20)]
        grid = grid_of(lambda p, received: ({"w": np.full(3, float(p >= 10))}, {"num-examples": 1}), nodes)
        seen = []
        strategy = ours.HybridStrategy(cutoff=ours.Deadline(10), staleness=Discard(), inclusion=inclusion)
        strategy.start(grid, weights(), 60, evaluate_fn=lambda n, a: seen.append(to_weights(a)["w"][0]))
        return np.mean(seen[20:])

    assert [share(None), share("inverse")] == pytest.approx([1 / 3, 1 / 2], abs=0.02)


FORMULAS = {
    Discard(): lambda tau: 0.0,
    Constant(): lambda tau: 1.0,
    Polynomial(0.7): lambda tau: (1 + tau) ** -0.7,
    ours.Hinge(10, 4): lambda tau: 1.0 if tau <= 4 else 1 / (10 * (tau - 4) + 1),
    ours.Harmonic(0.3): lambda tau: 1 / (1 + 0.3 * tau),
    ours.Exponential(0.2): lambda tau: math.exp(-0.2 * tau),
}


@pytest.mark.parametrize("policy", FORMULAS, ids=named)
def test_staleness_follows_its_formula_is_one_when_fresh_and_never_grows(policy):
    found = [policy.weight(tau) for tau in range(21)]
    assert found == pytest.approx([1.0, *map(FORMULAS[policy], range(1, 21))])
    assert all(0 <= b <= a <= 1 for a, b in itertools.pairwise(found))
    assert all(policy.weight(tau) == 0 for tau in range(21, 40))  # max_staleness is 20


def test_max_staleness_is_a_bound_that_may_be_moved_or_left_out():
    assert [Constant(max_staleness=2).weight(tau) for tau in (2, 3)] == [1, 0]
    assert Constant(max_staleness=None).weight(10**6) == 1


def test_exponential_staleness_works_in_fedqueue():
    strategy = ours.FedQueue(sync_s=8, safety_s=0, staleness=ours.Exponential(0.7), fraction_evaluate=0.0)
    # n1's update 8 - 0 comes in the second round beside n0's 1 - 1
    w = trained(strategy, grid_of(stepping([1.0, 8.0]), [1, 10]), rounds=2)
    worth = math.exp(-0.7)
    np.testing.assert_allclose(w, 1 + worth * 8 / (1 + worth))


BAD = [(kind, {"max_staleness": v}) for kind in (Constant, Polynomial, ours.Hinge) for v in (0, 1.5, True)]
BAD += [(Polynomial, {"a": -1}), (ours.Hinge, {"a": 0}), (ours.Hinge, {"b": -1}), (ours.Hinge, {"b": 1.5})]
BAD += [(kind, {"beta": v}) for kind in (ours.Harmonic, ours.Exponential) for v in (-1, "a", float("nan"))]
BAD += [(kind, {"max_ratio": v}) for kind in WEIGHTINGS for v in (0.5, "a", float("inf"))]
BAD += [(ByLoss, {"beta": "a"}), (ByGradientVariance, {"epsilon": 0}), (ByExamples, {"key": ""})]
BAD += [(ours.FedAsync, {"alpha": v}) for v in (0, 1.1)] + [(ours.FedAsync, {"rho": -1})]
BAD += [(ours.FedAsync, {"mix": "both"}), (ours.FedBuff, {"k": 0}), (ours.FedBuff, {"server_lr": 0})]
BAD += [(ours.HybridStrategy, {"inclusion": "both"}), (ours.FedNova, {"inner": flower.FedAvg()})]
BAD += [(ours.FedNova, {"normalise_steps": True}), (ours.FedAsync, {"server_lr": 0.5})]


@pytest.mark.parametrize(("kind", "options"), BAD, ids=named)
def test_wrong_values_are_refused_in_one_line(kind, options):
    with pytest.raises(ConfigError, match=rf"\A.*{next(iter(options))}.*\Z"):
        kind(**options)


@pytest.mark.parametrize(
    "strategy",
    [ours.FedBuff(k=3), ours.FedAsync(), ours.FedCompass()],
    ids=["fedbuff", "fedasync", "fedcompass"],
)
def test_nodes_without_examples_end_the_run_rather_than_spin(strategy):
    def reply_of(partition, received):
        return {"w": np.ones(3)}, {"num-examples": 0}

    grid = grid_of(reply_of, [1, 2, 3])
    with pytest.raises(RunError, match="rounds in a row"):
        trained(strategy, grid, rounds=9)
    assert grid.clock.now() < 200


@pytest.mark.parametrize("cutoff", [ours.AdaptiveDeadline(), ours.AdaptiveK()], ids=named)
def test_a_first_round_of_which_nothing_is_known_ends_although_nodes_are_refilled(cutoff):
    def reply_of(partition, received):
        return {"w": np.ones(3)}, {"num-examples": 1, "num-steps": 2, "train-s": 1.0}

    grid = grid_of(reply_of, [1, 2, 3])
    trained(ours.HybridStrategy(refill=True, cutoff=cutoff, fraction_evaluate=0.0), grid, rounds=3)
    assert grid.clock.now() < 30


def test_compass_makes_models_also_of_apps_that_report_no_steps():
    grid = grid_of(lambda p, received: ({"w": np.ones(3)}, {"num-examples": 1}), [1, 2, 3])
    np.testing.assert_allclose(trained(ours.FedCompass(alpha=1.0), grid, rounds=5), 1, atol=0.2)
    assert grid.clock.now() < 100


def test_losses_near_the_largest_float_end_no_run():
    def reply_of(partition, received):
        return {"w": np.ones(3)}, {"num-examples": 1, "train-loss": 1e308, "gradient-variance": 1e308}

    for weighting in (ByLoss(), ByGradientVariance()):
        strategy = ours.HybridStrategy(weighting=weighting, fraction_evaluate=0.0)
        np.testing.assert_allclose(trained(strategy, grid_of(reply_of, 3), rounds=3), 1)


def test_the_error_that_ends_a_run_says_why_replies_were_refused():
    grid = grid_of(lambda p, received: ({"w": np.ones(3)}, {"num-examples": 1}), 2)
    with pytest.raises(RunError, match=r"node-\d: refused, its metrics lack the weight 'num-steps'"):
        trained(ours.FedNova(), grid, rounds=9)
