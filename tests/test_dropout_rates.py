"""Slow nodes get smaller models, and no node is pushed back and forth."""

import json
import random
from statistics import fmean

import pytest

from flower_hpc.errors import ConfigError
from flower_hpc.strategies.dropout import FederatedDropout
from flower_hpc.strategies.ledger import Ledger
from flower_hpc.strategies.situation import Situation

UNEQUAL = {"a": 9.0, "b": 10.0, "c": 11.0, "d": 20.0, "e": 45.0}


def played(times_of, law, rounds=30, scatter=0.0):
    """The rates of each round where the part ``r`` of a model takes ``r ** law`` of the time."""
    seen, rng = Situation(), random.Random(2)
    history = []
    for number in range(1, rounds + 1):
        times = times_of(number)
        history.append(FederatedDropout().rate(list(times), seen))
        # asked again before anybody answered: nothing new, nothing changes
        assert FederatedDropout().rate(list(times), seen) == history[-1]
        for node, rate in history[-1].items():
            seen.ledger.answered(node, times[node] * rate**law * rng.uniform(1 - scatter, 1 + scatter))
        seen = Situation(ledger=seen.ledger, memory=json.loads(json.dumps(seen.memory)))
    return history


@pytest.mark.parametrize("law", [1, 1.5, 2])
def test_slow_nodes_get_smaller_models_and_are_not_pushed_back_and_forth(law):
    first, *later = played(lambda number: UNEQUAL, law)
    assert set(first.values()) == {1.0}
    assert later == [{"a": 1.0, "b": 1.0, "c": 1.0, "d": 0.5, "e": 0.25}] * 29


@pytest.mark.parametrize("law", [1, 2])
def test_a_larger_model_is_tried_rarely(law):
    history = played(lambda number: UNEQUAL, law, rounds=300, scatter=0.05)
    for node in "de":
        assert sum(rates[node] == 1 for rates in history) < 30
    if law == 1:  # else half of e's model takes a quarter of the time, which is soon enough
        assert sum(rates["e"] > 0.25 for rates in history) < 30


def test_scatter_among_equals_takes_nobodys_model_away():
    history = played(lambda number: dict.fromkeys("abcdef", 10.0), 1, scatter=0.1)
    assert all(set(rates.values()) == {1.0} for rates in history)


@pytest.mark.parametrize("law", [1, 1.5, 2])
def test_a_node_that_was_slow_for_a_while_gets_the_full_model_again(law):
    history = played(lambda n: {"a": 10.0, "b": 10.0, "c": 60.0 if n < 3 else 9.0}, law, rounds=120)
    assert history[3]["c"] < 1
    assert history[-1] == {"a": 1.0, "b": 1.0, "c": 1.0}


def test_what_is_no_training_does_not_shrink_with_the_model():
    policy, seen = FederatedDropout(), Situation()
    for _ in range(10):
        rates = policy.rate(["a", "b", "c"], seen)
        for node, overhead in (("a", 5.0), ("b", 5.0), ("c", 16.0)):
            train_s = 4 * rates[node]
            past = seen.ledger.of(node)
            past.learn({"num-steps": 8, "train-s": train_s}, overhead + train_s, limited=False)
    assert rates == {"a": 1.0, "b": 1.0, "c": 0.5}
    assert seen.memory["dropout"]["c"]["full_s"] == pytest.approx(20)


def test_without_a_history_the_profile_decides_and_without_that_nothing():
    ledger = Ledger()
    for node, gflops in (("a", 100.0), ("b", 110.0), ("c", 40.0), ("d", 10.0)):
        ledger.learn_profile(node, {"gflops": gflops})
    policy, nodes = FederatedDropout(), list("abcde")
    rates = {"a": 1.0, "b": 1.0, "c": 0.5, "d": 0.25, "e": 1.0}
    assert policy.rate(nodes, Situation(ledger=ledger)) == rates
    ledger.answered("a", 10.0)  # now in seconds, and still the same
    assert policy.rate(nodes, Situation(ledger=ledger)) == rates
    assert policy.rate(nodes, Situation()) == dict.fromkeys(nodes, 1.0)


def test_one_rate_is_everybodys_and_chance_is_uniform_and_the_runs_own():
    assert FederatedDropout(rates=[0.5]).rate(["a", "b"], Situation()) == {"a": 0.5, "b": 0.5}
    policy = FederatedDropout(by="random")
    draws = [policy.rate(["a"], Situation(rng=random.Random(seed)))["a"] for seed in range(600)]
    assert set(draws) == {1.0, 0.5, 0.25}
    assert fmean(draws) == pytest.approx(1.75 / 3, abs=0.04)
    assert FederatedDropout().profiles
    assert not policy.profiles
    assert not FederatedDropout(rates=(1,)).profiles
    assert FederatedDropout(rates=[0.25, 1, 0.5]) == FederatedDropout()


def test_a_resumed_run_may_have_other_rates():
    seen = Situation(memory={"dropout": {"a": {"rate": 0.6}}})
    assert FederatedDropout().rate(["a"], seen) == {"a": 0.5}


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"rates": ()}, r"rates must be a list of at least one rate, got \(\)"),
        ({"rates": "half"}, "each of dropout.s rates must be"),
        ({"rates": (1, 0)}, r"each of dropout's rates must be in \(0, 1\], got 0"),
        ({"rates": ("all",)}, r"rates must be in \(0, 1\], got 'all'"),
        ({"order": "sorted"}, "order must be one of ordered, rolling, random, got 'sorted'"),
        ({"by": "name"}, "by must be one of profile, random, got 'name'"),
    ],
)
def test_a_policy_that_cannot_work_is_refused(values, line):
    with pytest.raises(ConfigError, match=line):
        FederatedDropout(**values)
