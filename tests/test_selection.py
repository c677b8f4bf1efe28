"""Who is asked: fair within a bound, fast and sure nodes more often, failing ones ever less, by criteria."""

import itertools
import random
from collections import Counter

import numpy as np
import pytest
from flwr.app import Message, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import grid_of, stepping, weights
from flower_hpc.client import ProfiledApp
from flower_hpc.errors import ConfigError
from flower_hpc.protocol import PROFILE_QUERY
from flower_hpc.strategies import FedBuff, HybridStrategy, Ledger, Oort, RandomSelection, ResourceAware
from flower_hpc.strategies.loop.collect import Online
from flower_hpc.strategies.oort import clip_and_scale, paced, penalty, preferred_s, temporal
from flower_hpc.strategies.selection import feasible, must_go, rounds_waited
from flower_hpc.strategies.situation import Situation
from flower_hpc.telemetry import read_events
from flower_hpc.transport import InProcessGrid, InProcessNode
from processes import named

CLASSES = [RandomSelection, ResourceAware, Oort]


def simulate(policy, times, rounds, fails=lambda *_: False, look=lambda *_: None, seed=0):
    """The names asked in each round, by a policy whose nodes take so long and fail as told."""
    nodes = [Online(i, f"n{i}") for i in range(len(times))]
    ledger, rng, memory, asked = Ledger(), random.Random(seed), {}, []
    for number in range(1, rounds + 1):
        ledger.new_round()
        seen = Situation(number, online=len(nodes), ledger=ledger, rng=rng, memory=memory)
        look(nodes, seen)
        asked.append([node.name for node in policy.choose(nodes, seen)])
        for name in asked[-1]:
            ledger.selected(name, number)
            ledger.answered(name, times[int(name[1:])])
            end(ledger, name, number, not fails(name, number))
    return asked


def end(ledger, name, number, usable=True):
    if usable:
        ledger.completed(name, number, 1.0, late=False)
    else:
        ledger.failed(name, number)
    ledger.of(name).examples, ledger.of(name).loss = 10.0, 1.0


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(3, 60), st.integers(1, 12), st.floats(0, 5), st.integers(0, 1000))
def test_every_healthy_idle_node_takes_part_within_the_bound(data, count, every, penalty, seed):
    slots = data.draw(st.integers(1, count))
    times = np.random.default_rng(seed).lognormal(3, 1.5, count).tolist()
    bound = max(every, -(-count // slots))

    def due_nodes_fit(nodes, seen):
        waited = [rounds_waited(n.name, seen) for n in nodes]
        assert must_go(waited, slots, feasible(every, count, slots)) <= slots

    policy = ResourceAware(1e-6, at_least=slots, every=every, penalty=penalty)
    asked = simulate(policy, times, 3 * bound + 2, look=due_nodes_fit, seed=seed)
    assert all(len(set(names)) == len(names) == slots for names in asked)
    for first in range(len(asked) - bound + 1):
        assert len(set().union(*asked[first : first + bound])) == count


def test_those_who_must_go_are_the_largest_overhang_of_any_deadline():
    assert must_go([20, 20, 1], slots=2, every=20) == 2  # two are due now
    assert must_go([19, 19, 19, 1], slots=2, every=20) == 1  # three are due in two rounds
    assert must_go([1, 1, 1], slots=1, every=3) == 1  # exactly enough rounds: one each
    assert must_go([1, 1, 1], slots=1, every=4) == must_go([], slots=1, every=4) == 0
    assert (feasible(20, 50, 2), feasible(20, 39, 2)) == (25, 20)


def test_fast_and_reliable_nodes_are_asked_more_often_than_others():
    asked = Counter(itertools.chain(*simulate(ResourceAware(1 / 3), [10] * 6 + [100] * 3, 120)))
    slow = [asked.pop(f"n{i}") for i in (6, 7, 8)]
    assert min(asked.values()) > 2 * max(slow)
    assert min(slow) >= 120 // 20
    flaky = simulate(ResourceAware(0.5), [10] * 6, 120, lambda name, number: name < "n3" and number % 3 == 0)
    asked = [count for _, count in sorted(Counter(itertools.chain(*flaky)).items())]
    assert min(asked[3:]) > max(asked[:3])


def test_an_overloaded_node_rests_twice_as_long_each_time_and_is_back_once_it_recovers():
    overloaded = lambda name, number: name == "n0" and number < 150  # noqa: E731
    asked = simulate(ResourceAware(0.5, every=3), [10] * 4, 220, overloaded)
    before = [number for number in range(1, 150) if "n0" in asked[number - 1]]
    after = [number for number in range(150, 221) if "n0" in asked[number - 1]]
    assert np.diff(before).tolist() == [2 + 1, 4 + 1, 8 + 1, 16 + 1] + 3 * [32 + 1]
    assert after[0] - before[-1] <= 33
    assert max(np.diff(after)) <= 3


def test_an_overloaded_node_is_asked_ever_less_and_regularly_again_in_a_real_run(tmp_path):
    def overloaded(message):
        return "out of memory" if int(message.metadata.group_id) < 30 else None

    nodes = [InProcessNode("a"), InProcessNode("b"), InProcessNode("c"), InProcessNode("d", fails=overloaded)]
    grid, selection = grid_of(stepping([1, 2, 3, 4]), nodes), ResourceAware(0.5, every=4)
    events = run(grid, tmp_path, rounds=60, selection=selection)
    tried = [e["round"] for e in events if e["event"] == "sent" and e["node"] == "d" and e["kind"] == "train"]
    before, after = [n for n in tried if n < 30], [n for n in tried if n >= 30]
    assert all(np.diff(before) > [2, 4, 8])  # it rests, then it is its turn
    assert all(np.diff(before, 2) > 0)
    assert max(np.diff(after)) <= 4


def run(grid, tmp_path, rounds, kind=HybridStrategy, **options):
    strategy = kind(fraction_evaluate=0.0, run_dir=tmp_path, seed=1, **options)
    strategy.start(grid, weights(), num_rounds=rounds)
    return list(read_events(tmp_path / "events.jsonl"))


@pytest.mark.parametrize("selection", [RandomSelection(), ResourceAware(1.0), Oort(1.0)], ids=named)
def test_a_node_that_has_just_answered_may_be_asked_again_in_the_same_round(tmp_path, selection):
    events = run(grid_of(stepping([1, 2]), [1, 5]), tmp_path, 2, FedBuff, k=3, selection=selection)
    assert [e["replies"] for e in events if e["event"] == "aggregated"] == [3, 3]


def test_oorts_scores_are_those_computed_by_hand():
    # utilities 0 10 20 100: their median, 15, clips to 0 10 15 15; scaled to 0 2/3 1 1
    utilities = {"a": 0.0, "b": 10.0, "c": 20.0, "d": 100.0}
    # round 10, 0.1 ln 10 = 0.2302585; divided by the last rounds 1 5 9 10:
    #   0.2302585 0.0460517 0.0255843 0.0230259, roots 0.4798526 0.2145966 0.1599509 0.1517427
    rounds = {"a": 1, "b": 5, "c": 9, "d": 10}
    # median time of 1 2 4 8 is 3: factors 1, 1, (3/4)^2 = 0.5625, (3/8)^2 = 0.140625
    times = {"a": 1.0, "b": 2.0, "c": 4.0, "d": 8.0}
    # a 0 + 0.4798526; b 0.6666667 + 0.2145966; c 1.1599509 x 0.5625; d 1.1517427 x 0.140625
    table = {"a": 0.4798526, "b": 0.8812633, "c": 0.6524724, "d": 0.1619638}
    assert Oort(clip=0.5).scores(utilities, rounds, times, 10, 50) == pytest.approx(table, abs=1e-6)


def test_the_parts_of_oorts_score_have_their_limits():
    assert clip_and_scale({"a": 3.0, "b": 3.0}, 0.9) == {"a": 1.0, "b": 1.0}
    assert clip_and_scale({"a": 1.0, "b": 2.0, "c": 3.0}, 1.0) == {"a": 0.0, "b": 0.5, "c": 1.0}
    assert temporal(1, 1) == temporal(0, 0) == 0
    assert temporal(100, 1) > temporal(100, 50) > 0
    assert preferred_s([1, 2, 3], 100) == preferred_s([], 30) == float("inf")
    assert penalty(None, 5, 2) == penalty(0, 5, 2) == penalty(5, 5, 2) == penalty(9, float("inf"), 2) == 1
    assert (penalty(10, 5, 2), penalty(10, 5, 0)) == (0.25, 1)


PACES = [(30, 10, 11, 35), (30, 10, 9, 35), (98, 10, 10, 100), (30, 10, 60, 25), (7, 10, 60, 5)]
PACES += [(30, 0, 9, 25), (30, None, 5, 30), (30, 10, 59, 30), (30, 10, 12, 30), (30, 10, 8, 30)]


@pytest.mark.parametrize(("percentile", "before", "used", "then"), PACES)
def test_the_pacer_is_patient_where_utility_stagnates(percentile, before, used, then):
    assert paced(percentile, before, used, 5) == then


@pytest.mark.parametrize("fraction", [0.2, 1 / 3, 0.5, 1.0])
def test_oort_explores_everybody_within_a_few_rounds_and_then_asks_as_many(fraction):
    count, slots = 15, int(fraction * 15)
    asked = simulate(Oort(fraction), list(range(1, count + 1)), 60)
    assert len(set().union(*asked[: 2 * -(-count // slots)])) == count
    assert all(len(set(names)) == len(names) == slots for names in asked)


def test_a_failed_nodes_chance_falls_though_its_utility_stays():
    chosen = Counter()
    for seed in range(300):
        ledger = Ledger()
        for i in range(4):
            ledger.selected(f"n{i}", 1)
            end(ledger, f"n{i}", 1)
        for _ in range(4):
            ledger.failed("n0", 2)
        seen = Situation(9, online=4, ledger=ledger, rng=random.Random(seed))
        chosen[Oort(0.25, cut_off=0).choose([Online(i, f"n{i}") for i in range(4)], seen)[0].name] += 1
    # reliabilities (1 + 2) / (1 + 3) and, after four failures, (0.9^4 + 2) / (0.9^4 + 3.439 + 3)
    share = 2.6561 / 7.0951 / (2.6561 / 7.0951 + 3 * 0.75)
    assert chosen["n0"] / 300 == pytest.approx(share, abs=0.06)


@pytest.mark.parametrize("kind", CLASSES)
def test_only_nodes_that_meet_the_criteria_are_chosen(kind):
    nodes = [Online(i, name) for i, name in enumerate(["hpc-0", "hpc-1", "cloud-0", "x"])]
    seen = Situation(1, online=4)
    seen.ledger.learn_profile("hpc-0", {"gpus": 2})
    assert {n.name for n in kind(1.0, where='site == "hpc"').choose(nodes, seen)} == {"hpc-0", "hpc-1"}
    assert [n.name for n in kind(1.0, where='site != "cloud" and gpus > 1').choose(nodes, seen)] == ["hpc-0"]
    assert kind(1.0, where="gpus > 8").choose(nodes, seen) == []


@pytest.mark.parametrize("kind", CLASSES)
def test_criteria_hold_for_what_nodes_tell_of_themselves_in_a_real_run(tmp_path, kind):
    app = ProfiledApp()

    @app.train()
    def train(message, context):
        content = {"arrays": message.content["arrays"].copy(), "metrics": MetricRecord({"num-examples": 1})}
        return Message(RecordDict(content), reply_to=message)

    sites = {"n0": "hpc", "n1": "cloud", "n2": "hpc"}
    nodes = [InProcessNode(name, node_config={"site": site}) for name, site in sites.items()]
    events = run(InProcessGrid(app, nodes), tmp_path, rounds=3, selection=kind(1.0, where='site == "hpc"'))
    sent = {(e["kind"], e["node"]) for e in events if e["event"] == "sent"}
    assert {node for kind, node in sent if kind == "train"} == {"n0", "n2"}
    assert {node for kind, node in sent if kind == PROFILE_QUERY} == set(sites)


@pytest.mark.parametrize("selection", [ResourceAware(0.5), Oort(0.5)], ids=named)
def test_an_app_that_answers_no_query_takes_part_by_its_history(tmp_path, selection):
    events = run(grid_of(stepping([1, 2, 3, 4]), [1, 2, 3, 4]), tmp_path, rounds=8, selection=selection)
    assert {e["node"] for e in events if e["event"] == "reply_accepted"} == {"n0", "n1", "n2", "n3"}
    assert not {"reply_failed", "node_lost", "round_skipped"} & {e["event"] for e in events}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(CLASSES), st.integers(0, 20), st.floats(0.01, 1), st.integers(1, 9), st.data())
def test_a_choice_has_no_doubles_is_as_large_as_asked_and_repeats(kind, count, fraction, least, data):
    nodes = [Online(i, f"n{i:02}") for i in range(count)]
    wanted, seed = data.draw(st.none() | st.integers(0, 25)), data.draw(st.integers(0, 99))
    past = st.tuples(st.floats(0, 1e4), st.integers(0, 5), st.booleans())
    known = data.draw(st.lists(past, max_size=count))

    def choose():
        seen = Situation(6, online=count, rng=random.Random(seed))
        for node, (seconds, number, usable) in zip(nodes, known, strict=False):
            seen.ledger.selected(node.name, number)
            seen.ledger.answered(node.name, seconds)
            end(seen.ledger, node.name, number, usable)
        return seen, kind(fraction, least).choose(nodes, seen, wanted)

    seen, chosen = choose()
    assert len(set(chosen) & set(nodes)) == len(chosen)
    awake = sum(kind is not ResourceAware or not kind().rests(n.name, seen) for n in nodes) or count
    assert len(chosen) == min(max(least, int(fraction * count + 1e-9)) if wanted is None else wanted, awake)
    assert choose()[1] == chosen


NUMBERS = [{"fraction": v} for v in (0, 1.1, "a", float("nan"), True)] + [{"at_least": v} for v in (0, 1.5)]
SHARED = [*NUMBERS, {"where": "core > 3"}, {"where": "import os"}, {"where": 3}]
OWN = [{"every": 0}, {"every": 2.5}, {"penalty": -1}, {"longest_rest": 0}]
OORT = [{"alpha": -1}, {"explore": 1.1}, {"explore_decay": -0.1}, {"explore_least": "a"}, {"clip": 0}]
OORT += [{"cut_off": 2}, {"percentile": 0}, {"percentile": 101}, {"pace_rounds": 0}, {"pace_step": 0}]
BAD = [*itertools.product(CLASSES, SHARED), *((ResourceAware, o) for o in OWN), *((Oort, o) for o in OORT)]


@pytest.mark.parametrize(("kind", "options"), BAD, ids=named)
def test_wrong_values_are_refused_in_one_line(kind, options):
    with pytest.raises(ConfigError, match=rf"\A.*{next(iter(options))}.*\Z"):
        kind(**options)
