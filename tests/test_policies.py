"""Cutoffs, staleness, selection: what they decide and what they refuse."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flower_hpc.errors import ConfigError
from flower_hpc.mean import StreamingMean, mean_metrics
from flower_hpc.strategies import Deadline, Discard, FedProx, FirstK, Polynomial, RandomSelection, WaitForAll
from flower_hpc.strategies.cutoff import Progress
from flower_hpc.strategies.ledger import FIRST_REST_S, LONGEST_REST_S, Ledger
from flower_hpc.strategies.loop.collect import Online
from flower_hpc.strategies.situation import Situation

STARTED = Progress(asked=10, replied=0, waiting=10, elapsed_s=0)


@pytest.mark.parametrize(
    ("k", "asked", "needed"),
    [
        (1, 10, 1),
        (3, 10, 3),
        (3, 2, 2),
        (0.75, 4, 3),
        (2 / 3, 3, 2),
        (0.7, 10, 7),
        (0.01, 10, 1),
        (1.0, 7, 7),
    ],
)
def test_first_k_needs_a_count_or_a_rounded_up_fraction(k, asked, needed):
    assert FirstK(k).needed(asked) == needed
    assert FirstK(k).reason(Progress(asked, needed, 1, 0))
    assert FirstK(k).reason(Progress(asked, needed - 1, 1, 1e9)) is None


@given(st.floats(0.01, 1), st.integers(1, 1000))
def test_a_fraction_is_never_below_its_share(k, asked):
    assert k * asked - 1e-6 <= FirstK(k).needed(asked) < k * asked + 1


def test_joined_cutoffs_end_with_whichever_comes_first():
    both = FirstK(3) | Deadline(60)
    assert both.due_s() == 60
    assert both.reason(STARTED) is None
    assert both.reason(Progress(10, 3, 7, 1)) == "first 3 of 10"
    assert both.reason(Progress(10, 0, 10, 60)) == "deadline 60 s"
    assert (WaitForAll() | Deadline(5) | FirstK(2)).due_s() == 5


@pytest.mark.parametrize("k", [0, -1, 0.0, 1.5, -0.5, True, "3", float("nan"), None])
def test_first_k_refuses(k):
    with pytest.raises(ConfigError, match="k must be a whole number >= 1 or a fraction"):
        FirstK(k)


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan"), "10", None, True])
def test_deadline_refuses(seconds):
    with pytest.raises(ConfigError, match="deadline must be a number of seconds > 0"):
        Deadline(seconds)


def test_a_count_above_the_nodes_is_refused():
    (FirstK(0.9) | Deadline(1)).check(1)
    FirstK(3).check(3)
    with pytest.raises(ConfigError, match="at most the number of nodes, 2, got 3"):
        (Deadline(1) | FirstK(3)).check(2)


@pytest.mark.parametrize(
    "policy", [Discard(), Polynomial(), Polynomial(0), Polynomial(2, max_staleness=None)]
)
def test_fresh_updates_are_worth_one_and_worth_never_grows(policy):
    worth = [policy.weight(tau) for tau in range(40)]
    assert worth[0] == 1
    assert all(0 <= b <= a for a, b in itertools.pairwise(worth))


@pytest.mark.parametrize("options", [{"a": -1}, {"a": "x"}, {"max_staleness": 0}, {"max_staleness": 1.5}])
def test_polynomial_refuses(options):
    with pytest.raises(ConfigError):
        Polynomial(**options)


@pytest.mark.parametrize("options", [{"fraction": 0}, {"fraction": 1.1}, {"at_least": 0}])
def test_selection_refuses(options):
    with pytest.raises(ConfigError):
        RandomSelection(**options)


def test_selection_is_a_sample_without_repeats():
    nodes, seen = [Online(i, f"n-{i}") for i in range(10)], Situation(online=10, rng=random.Random(0))
    chosen = RandomSelection(0.5).choose(nodes, seen)
    assert len(set(chosen)) == len(chosen) == 5
    assert len(RandomSelection(0.5, at_least=8).choose(nodes, seen)) == 8


@pytest.mark.parametrize("mu", [-1, float("inf"), "a"])
def test_fedprox_refuses(mu):
    with pytest.raises(ConfigError, match="mu"):
        FedProx(mu=mu)


def test_a_lost_node_rests_twice_as_long_each_time_until_it_answers():
    ledger = Ledger()
    rests = []
    for _ in range(9):
        ledger.lost("n", 0)
        rests.append(ledger.of("n").rest_until)
    assert rests[:3] == [FIRST_REST_S, 2 * FIRST_REST_S, 4 * FIRST_REST_S]
    assert rests[-1] == LONGEST_REST_S
    ledger.answered("n", 5)
    assert not ledger.suspect("n")
    assert ledger.slowest_s() == 5


def test_the_mean_cannot_overflow_where_its_inputs_do_not():
    mean = StreamingMean()
    big = np.finfo(np.float64).max
    for value in (big, -big, big):
        mean.add({"w": np.array([value])}, 1e6, is_update=False)
    assert np.isfinite(mean.result({"w": np.zeros(1)})["w"]).all()


def test_fortran_order_is_averaged_by_place():
    x = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    mean = StreamingMean()
    mean.add({"w": x}, 1, is_update=False)
    mean.add({"w": np.ascontiguousarray(x)}, 3, is_update=False)
    np.testing.assert_allclose(mean.result({"w": x})["w"], x)


def test_metrics_are_averaged_over_the_nodes_that_report_them():
    records = [
        ({"loss": 1.0, "n": 9, "list": [1.0, 2.0]}, 1),
        ({"loss": 4.0, "n": 9}, 2),
        ({"n": 9, "loss": np.nan}, 5),
    ]
    mean = mean_metrics(records, skip="n")
    assert dict(mean) == {"loss": 3.0, "list": [1.0, 2.0]}
    assert mean_metrics([], skip="n") is None
