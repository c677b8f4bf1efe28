"""How much each node does, and until when it is awaited: deadlines, groups, batch queues; virtual time."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import strategy as flower
from hypothesis import given
from hypothesis import strategies as st

from conftest import grid_of, stepping, weights
from flower_hpc.errors import ConfigError
from flower_hpc.protocol import DEADLINE_S, LOCAL_STEPS, LR_FACTOR, MAX_STEPS, PARTITION_ID
from flower_hpc.records import to_record, to_weights
from flower_hpc.strategies import Constant, Discard, FedCompass, FedQueue, FitDeadline, HybridStrategy
from flower_hpc.strategies.adaptive import AdaptiveDeadline, AdaptiveK, best_k
from flower_hpc.strategies.compass import Compass
from flower_hpc.strategies.cutoff import Deadline, Progress, WaitForAll
from flower_hpc.strategies.queue_aware import Ewma, Quantile, QueueAware
from flower_hpc.strategies.situation import Situation
from flower_hpc.telemetry import read_events
from flower_hpc.transport import InProcessGrid, InProcessNode
from processes import named


class Site:
    """Nodes with seconds a step and of waiting; ``asked`` is when each was told what. The last one may go."""

    def __init__(self, step_s, wait_s=0.0, offline=(), silent_from=math.inf):
        self.step_s, self.wait_s, self.silent_from = step_s, np.broadcast_to(wait_s, len(step_s)), silent_from
        self.asked, app, away = [], ClientApp(), [()] * (len(step_s) - 1) + [offline]
        app.train()(self.train)
        nodes = [InProcessNode(f"n{i}", partial(self.seconds, i), away[i]) for i in range(len(step_s))]
        self.grid = InProcessGrid(app, nodes)

    def steps(self, i, message):
        config = message.content["config"]
        in_time = max(1, int(config[DEADLINE_S] / self.step_s[i] + 1e-9))
        return config.get(LOCAL_STEPS) or min(40, config.get(MAX_STEPS, 40), in_time)

    def seconds(self, i, message):
        now = self.grid.clock.now()
        self.asked.append((now, f"n{i}", dict(message.content["config"])))
        silent = i == len(self.step_s) - 1 and now >= self.silent_from
        return math.inf if silent else self.wait_s[i] + self.steps(i, message) * self.step_s[i]

    def train(self, message, context):
        i, w = context.node_config[PARTITION_ID], to_weights(message.content["arrays"])["w"]
        steps = self.steps(i, message)
        told = {"num-examples": 1, "num-steps": steps, "train-s": steps * self.step_s[i]}
        content = {"arrays": to_record({"w": w + 10.0**i}), "metrics": MetricRecord(told)}
        return Message(RecordDict(content), reply_to=message)


def run(grid, folder, strategy=HybridStrategy, rounds=6, timeout=1e6, **options):
    made = strategy(**{"fraction_evaluate": 0.0, "run_dir": folder} | options)
    result = made.start(grid, weights(), num_rounds=rounds, timeout=timeout)
    return to_weights(result.arrays)["w"], list(read_events(folder / "events.jsonl"))


def of(events, *kinds):
    return [e for e in events if e["event"] in kinds]


def test_slow_nodes_do_less_arrive_on_time_and_nobody_does_more_than_his_own(tmp_path):
    site = Site([0.1, 1.0], [1.0, 2.0])
    _, events = run(site.grid, tmp_path, cutoff=Deadline(20), work=FitDeadline())
    fast, slow = ([config for _, n, config in site.asked if n == name] for name in ("n0", "n1"))
    assert (slow[0][DEADLINE_S], MAX_STEPS in slow[0]) == (18, False)  # unknown: a budget alone
    assert all(config[MAX_STEPS] in (15, 16) for config in slow[1:])  # (0.9 x 20 - 2 of waiting) / 1
    assert not any(MAX_STEPS in config for config in fast)
    assert len(of(events, "reply_late")) <= 1  # the first, whose wait was not known
    assert len([e for e in of(events, "reply_accepted") if e["node"] == "n1"]) >= 4


@given(st.floats(0.01, 50), st.floats(0, 50), st.integers(1, 500), st.floats(1, 1000), st.floats(0.1, 1))
def test_steps_fit_the_time_that_is_left(step_s, overhead, full, due, margin):
    seen = Situation(2, due_s=due)
    past = seen.ledger.of("n")
    past.step_s, past.overhead_s, past.full_steps = step_s, overhead, full
    told = FitDeadline(margin).assign(["n", "new"], seen)
    assert told["new"] == {DEADLINE_S: pytest.approx(margin * due)}
    left = max(margin * due - overhead, 0.1 * margin * due)
    assert told["n"][DEADLINE_S] == pytest.approx(left)
    steps = told["n"].get(MAX_STEPS, full)
    assert 1 <= steps <= full
    assert steps == 1 or steps * step_s <= left * (1 + 1e-9)
    assert steps == full or (steps + 1) * step_s > left * (1 - 1e-9)
    assert FitDeadline().assign(["n"], Situation()) == {}


def test_a_node_that_is_asked_in_the_middle_of_a_round_gets_the_time_that_is_left(tmp_path):
    site, work = Site([0.1, 10.0]), FitDeadline()
    run(site.grid, tmp_path, rounds=1, cutoff=Deadline(10), work=work, staleness=Discard(), refill=True)
    assert len(site.asked) >= 3
    assert all(time + config[DEADLINE_S] <= 10 + 0.01 for time, _, config in site.asked)


def test_an_adaptive_deadline_is_a_quantile_of_what_is_predicted():
    seen = Situation()
    assert AdaptiveDeadline(0.75, 2).plan([1.0, 2, 3, 4, 5], seen) == Deadline(8)
    assert AdaptiveDeadline(1, 1).plan([7.0, None, 3.0], seen) == Deadline(7)
    assert AdaptiveDeadline().plan([None, None], seen) == WaitForAll()
    assert AdaptiveDeadline(first_s=9).plan([None], seen) == Deadline(9)


def test_an_adaptive_deadline_leaves_time_to_train_though_evaluation_is_quicker(tmp_path):
    def delay(message):
        return 100.0 if message.metadata.message_type == "train" else 1.0

    grid = grid_of(stepping([1, 2]), [InProcessNode(f"n{i}", delay) for i in range(2)])
    _, events = run(grid, tmp_path, cutoff=AdaptiveDeadline(1.0), fraction_evaluate=1.0)
    assert not of(events, "reply_late", "round_skipped")


@given(st.lists(st.floats(1, 1e3), min_size=1, max_size=12), st.floats(0.1, 10), st.integers(1, 12))
def test_the_best_k_is_few_without_spread_and_all_with_much(times, cost, least):
    times, least = sorted(times), min(least, len(times))
    assert best_k(times, 0, cost, least) == max(k for k, t in enumerate(times, 1) if t <= times[least - 1])
    assert best_k(times, 1e9, cost, least) == len(times)


def test_adaptive_k_moves_by_one_a_round_towards_the_best_at_a_cost_that_follows_the_loss():
    # T_(k) (1 + 1/k - 1/4) of 1 2 3 12 with spread 1: 1.75 2.5 3.25 12, from k_min = 2 on: 2
    assert best_k([1, 2, 3, 12], 1.0, 1.0, 2) == 2
    seen = Situation()
    assert AdaptiveK().plan([1.0, 2, 3, 12], seen) == WaitForAll()  # the spread is not known
    seen.ledger.spread = 1.0
    assert [AdaptiveK().plan([1.0, 2, 3, 12], seen).k for _ in range(4)] == [3, 2, 2, 2]
    seen.ledger.spread = 1e9
    assert [AdaptiveK().plan([1.0, 2, 3, 12], seen).k for _ in range(3)] == [3, 4, 4]
    for seen.ledger.losses, least, most in (([1.0, 2.0], 1.25, 10), ([2.0, 1.0], 9.5, 0.1)):
        costs = [AdaptiveK().plan([1.0], seen) and seen.memory["adaptive-k"]["cost"] for _ in range(99)]
        assert (costs[0], costs[-1]) == pytest.approx((least, most))


def paced():
    seen = Situation()
    for name, pace in zip("abcdef", (1, 2, 5, 6, 2, 1), strict=True):
        seen.ledger.of(name).pace_s = pace
    return seen, Compass(20, 100, 1.5)


def test_compass_joins_the_group_of_most_steps_or_opens_one():
    seen, policy = paced()
    told = {n: w[LOCAL_STEPS] for n, w in policy.assign(["c", "b", "a", "new"], seen).items()}
    # a opens with 100 steps, due at 100, latest 150; b does 100 / 2, c 100 / 5; of new nothing is known
    assert told == {"a": 100, "b": 50, "c": 20, "new": 20}
    # d: 100 / 6 < 20 steps, it opens with (150 + 1 x 100) / 6, due at 6 x 41 = 246, latest 369
    assert policy.assign(["d"], seen) == {"d": {LOCAL_STEPS: 41}}
    # e at 60: (100 - 60) / 2 = 20 or (246 - 60) / 2 = 93
    assert policy.assign(["e"], replace(seen, now=60))["e"][LOCAL_STEPS] == 93
    # f at 110: nothing left in the first, 136 > 100 in the second: opens with min(100, 369 + 100 - 110)
    assert policy.assign(["f"], replace(seen, now=110))["f"][LOCAL_STEPS] == 100


def test_compass_waits_for_a_group_but_not_for_the_dead_nor_beyond_its_latest_time():
    seen, policy = paced()
    policy.assign(["a", "b", "c"], seen)
    policy.answered("a", seen)
    assert (policy.holds("a", seen), policy.holds("b", seen)) == (True, False)

    def reason(now):
        return policy.reason(Progress(3, 1, 2, now, 1, ["b", "c"], now, seen.memory))

    assert reason(149) is None
    assert reason(150) == "group 1: 1 of 3 arrived"
    policy.answered("b", seen)
    policy.lost("c", seen)
    assert reason(101) == "group 1: 2 of 2 arrived"
    policy.closed(replace(seen, now=101), [])
    assert not policy.holds("a", seen)


def test_nodes_of_a_group_arrive_together_with_steps_within_their_bounds(tmp_path):
    site = Site([1.0, 2.0, 4.0])
    _, events = run(site.grid, tmp_path, FedCompass, rounds=10, q_min=5, q_max=40)
    assert {config[LOCAL_STEPS] for _, _, config in site.asked} <= set(range(5, 41))
    came = [[e["time"] for e in of(events, "reply_accepted") if e["round"] == n] for n in range(4, 11)]
    assert all(len(times) == 3 and max(times) - min(times) <= 5 for times in came)


@pytest.mark.parametrize("gone", [{"silent_from": 100}, {"offline": [(100, 1e9)]}], ids=["silent", "offline"])
def test_a_dead_node_does_not_hold_its_group_beyond_the_latest_time(tmp_path, gone):
    _, events = run(Site([1.0, 1.1, 1.2], **gone).grid, tmp_path, FedCompass, rounds=12, q_min=5, q_max=40)
    made = np.diff([e["time"] for e in of(events, "aggregated")])
    assert len(made) == 11
    assert max(made) <= 1.5 * 40 * 1.2 + 1  # latency x most steps x pace


def test_steps_fill_what_the_queue_leaves_and_the_estimate_is_frozen_when_asked():
    assert Ewma(0.5, 2).seconds([10, 20]) == 0.5 * 20 + 0.5 * (0.5 * 10 + 0.5 * 2)
    assert Quantile(0.5, window=3).seconds([1000, 1, 2, 3]) == 2
    assert (Ewma(1.0).seconds([1, 9]), Ewma().seconds([]), Quantile(first_s=7).seconds([])) == (9, 2, 7)
    policy, seen = QueueAware(100, 10, 5, 0.2), Situation()
    for name, waits, step_s in (("a", [16.0], 1.0), ("b", [500.0], 1.0), ("c", [], 0.5), ("new", [], None)):
        seen.ledger.of(name).queues_s, seen.ledger.of(name).step_s = waits, step_s
    told = policy.assign(["a", "b", "c", "new"], seen)
    # (100 - 9 - 10) / 1; max(0.5, 100 - 251 - 10) -> warm-up; (100 - 2 - 10) / 0.5; unknown -> warm-up
    assert {n: w[LOCAL_STEPS] for n, w in told.items()} == {"a": 81, "b": 5, "c": 176, "new": 5}
    assert [told[n][LR_FACTOR] for n in ("a", "b", "c", "new")] == [0.25, 1, 0.25, 1]  # 5 / 81, clipped
    seen.ledger.of("a").queues_s = [1e6]
    assert (policy.admits("a", 29.0, seen), policy.admits("a", 29.1, seen)) == (True, False)  # 9 + 0.2 x 100
    for name in ("b", "new"):
        policy.lost(name, seen)
    assert policy.assign(["c"], seen)["c"][LR_FACTOR] == pytest.approx(81 / 176)  # a is still under way


@pytest.mark.parametrize("inner", [False, True], ids=["mean", "inner FedAvg"])
@pytest.mark.parametrize(("estimate", "second"), [(Ewma(0.5, 2), 1), (Quantile(first_s=2), 2)], ids=named)
def test_an_update_that_queued_too_long_joins_the_next_model(tmp_path, inner, estimate, second):
    site, least = Site([0.05, 0.05], [0.0, 50.0]), {"min_train_nodes": 1, "min_available_nodes": 1}
    stock = flower.FedAvg(fraction_evaluate=0.0, **least) if inner else None
    work = QueueAware(100, 0, 20, 0.2, estimate)
    options = {"work": work, "cutoff": Deadline(115), "staleness": Constant(), "inner": stock}
    w, events = run(site.grid, tmp_path, rounds=2, **options)
    assert ["admitted" in e for e in of(events, "reply_accepted")[:2]] == [False, True]
    assert [(e["replies"], e["late"]) for e in of(events, "aggregated")] == [(1, 0), (1 + second, 1)]
    # the second adds n0's 1, n1's 10 of the first round and, where 50 s are expected by now, of the second
    np.testing.assert_allclose(w, 1 + (1 + 10 * second) / (1 + second))


def test_where_none_is_admitted_those_are_used_and_a_round_ends_within_its_tolerance(tmp_path):
    w, events = run(Site([0.05, 0.05], 50.0).grid, tmp_path, FedQueue, rounds=1, sync_s=100, safety_s=0)
    assert [e["admitted"] for e in of(events, "reply_accepted")] == [False, False]
    np.testing.assert_allclose(w, (1 + 10) / 2)
    grid, folder = Site([0.05, 0.05], [0.0, 5e3]).grid, tmp_path / "slow"
    _, events = run(grid, folder, FedQueue, rounds=2, sync_s=100, tolerance=0.2)
    assert of(events, "cut")[0]["time"] == pytest.approx(120, abs=0.01)


def test_a_message_lives_as_long_as_its_round_may_last(tmp_path):  # 1.15 x 3600 = 4140 s
    _, events = run(Site([0.05, 0.05], [0.0, 3700.0]).grid, tmp_path, FedQueue, rounds=1)
    assert [e["node"] for e in of(events, "reply_accepted")] == ["n0", "n1"]


BAD = [(AdaptiveDeadline, {k: 0}) for k in ("quantile", "margin", "first_s")]
BAD += [(AdaptiveK, {"k_min": 0}), (AdaptiveK, {"cost": 0}), (FitDeadline, {"margin": 1.1})]
BAD += [(Compass, {"q_min": 0}), (Compass, {"latency": 0.9}), (FitDeadline, {"min_steps": 0})]
BAD += [(QueueAware, {k: -1}) for k in ("sync_s", "safety_s", "warm_up", "admission", "estimate")]
BAD += [(Ewma, {"beta": 0}), (Quantile, {"q": 1.1}), (FedQueue, {"tolerance": -1}), (Compass, {"q_max": 5})]


@pytest.mark.parametrize(("kind", "options"), BAD, ids=named)
def test_wrong_values_are_refused_in_one_line(kind, options):
    with pytest.raises(ConfigError, match=rf"\A.*{next(iter(options))}.*\Z"):
        kind(**options)
