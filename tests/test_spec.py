"""Strategy specs: strings become strategies, and nothing in them is run."""

import json

import pytest
from flwr.app import Context, RecordDict
from flwr.serverapp import strategy as flower
from hypothesis import given
from hypothesis import strategies as st

from flower_hpc.errors import ConfigError
from flower_hpc.strategies import (
    Deadline,
    Discard,
    FedProx,
    FirstK,
    HybridStrategy,
    Polynomial,
    check,
    configured,
    parse,
)
from flower_hpc.strategies.cutoff import AnyOf


def test_a_cutoff_alone_is_the_hybrid_strategy():
    strategy = parse("first_k(0.75) | deadline(60)")
    assert type(strategy) is HybridStrategy
    assert strategy.settings.cutoff == AnyOf(FirstK(0.75), Deadline(60))


def test_names_and_literals_build_the_rest():
    strategy = parse("fedprox(mu=0.1, cutoff=first_k(3), staleness=discard, min_nodes=3)")
    assert isinstance(strategy, FedProx)
    assert (strategy.mu, strategy.settings.staleness, strategy.settings.min_nodes) == (0.1, Discard(), 3)
    assert parse("first_k(2/3)").settings.cutoff == FirstK(2 / 3)
    assert parse("").settings.worth == Polynomial()
    assert parse(" hybrid ").settings.worth == Polynomial()


def test_flowers_strategies_are_there_alone_and_inside():
    assert type(parse("flower.FedAvg(fraction_evaluate=0.5)")) is flower.FedAvg
    inner = parse("hybrid(inner=flower.FedAdam(eta=0.05), cutoff=deadline(5))").settings.inner
    assert (type(inner), inner.eta) == (flower.FedAdam, 0.05)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("first_k(0)", "k must be a whole number"),
        ("first_k(", "cannot be read"),
        ("nope(3)", "unknown name 'nope'"),
        ("flower.Nope()", "unknown name 'flower.Nope'"),
        ("__import__('os').system('true')", "unknown name"),
        ("(lambda: 1)()", "unknown name"),
        ("hybrid(**{'min_nodes': 1})", "is not allowed"),
        ("hybrid(cutof=deadline(3))", "cutof"),
        ("deadline(3) | 4", "only cutoffs join"),
        ("discard()", "is no strategy or cutoff"),
        ("3", "is no strategy or cutoff"),
        ("deadline(x)", "unknown name 'x'"),
        ("deadline([i for i in range(3)])", "neither a literal nor a known name"),
        ("hybrid(inner=hybrid())", "inner must be a Flower strategy"),
        ("1 +", "cannot be read"),
        ("first_k(1/0)", "neither a literal nor a known name"),
        ("first_k(3/2)", "k must be a whole number"),
    ],
)
def test_anything_else_is_refused_in_one_line(spec, words):
    with pytest.raises(ConfigError) as caught:
        parse(spec)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=40))
def test_no_text_does_worse_than_a_config_error(spec):
    try:
        parse(spec)
    except ConfigError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_k_above_the_nodes_is_found_before_the_run():
    with pytest.raises(ConfigError, match="at most the number of nodes"):
        check("first_k(5) | deadline(60)", num_nodes=4)
    for spec in ("hybrid(min_nodes=5)", "hybrid(inner=flower.FedAvg(min_train_nodes=5))"):
        with pytest.raises(ConfigError, match="needs at least 5 nodes, the federation has 4"):
            check(spec, num_nodes=4)


def context(run_id, **run_config):
    return Context(run_id, 0, {}, RecordDict(), run_config)


def test_the_run_config_names_the_strategy(monkeypatch):
    monkeypatch.delenv("FLOWER_HPC_STATE", raising=False)
    assert isinstance(configured(context(1, strategy="fedprox(mu=1)")), FedProx)
    assert configured(context(1)).settings.run_dir is None


def test_a_request_of_our_command_line_wins_and_names_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("FLOWER_HPC_STATE", str(tmp_path))
    (tmp_path / "requests").mkdir()
    request = {"run": "r1", "run_dir": str(tmp_path / "runs/r1"), "strategy": "deadline(9)", "nodes": 4}
    (tmp_path / "requests/7.json").write_text(json.dumps(request))
    settings = configured(context(7, strategy="deadline(1)")).settings
    assert (settings.cutoff, settings.run_name, settings.run_dir) == (Deadline(9), "r1", tmp_path / "runs/r1")
    (tmp_path / "requests/9.json").write_text(json.dumps(request | {"nodes": 1}))
    assert configured(context(9)).settings.min_nodes == 1  # it would wait for a second one in vain
    assert configured(context(8, strategy="deadline(1)")).settings.cutoff == Deadline(1)
