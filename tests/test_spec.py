"""Strategy specs: strings become strategies, and nothing in them is run."""

import json

import pytest
from flwr.app import Context, RecordDict
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Strategy
from hypothesis import given
from hypothesis import strategies as st

from flower_hpc.compression import Compression, Int8, TopK
from flower_hpc.errors import ConfigError
from flower_hpc.strategies import (
    Deadline,
    Discard,
    FedProx,
    FirstK,
    HybridStrategy,
    Polynomial,
    check,
    compose,
    configured,
    describe,
    from_mapping,
    parse,
    with_default,
)
from flower_hpc.strategies.arguments import refusal
from flower_hpc.strategies.cutoff import AnyOf
from flower_hpc.strategies.registry import NAMES


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
        ("hybrid(run_dir='x')", "run_dir is the run's own"),
        ("fedbuff(resume=True)", "resume is the run's own"),
        ("deadline(3) | 4", "only cutoffs join"),
        ("discard()", "is no strategy or cutoff"),
        ("3", "is no strategy or cutoff"),
        ("deadline(x)", "unknown name 'x'"),
        ("deadline([i for i in range(3)])", "neither a literal nor a known name"),
        ("hybrid(inner=hybrid())", "inner must be a Flower strategy"),
        ("1 +", "cannot be read"),
        ("first_k(1/0)", "neither a literal nor a known name"),
        ("first_k(3/2)", "k must be a whole number"),
        ("first_k", "first_k needs k: a number of replies (>= 1) or a fraction (0..1)"),
        ("deadline()", "deadline needs seconds: "),
        ("first_k(late=true)", "unknown name 'true'"),
        ("first_k(late=True)", "first_k needs k: "),
        ("first_k(1, False, 3)", "first_k takes at most 2 without a name (k, late), got 3"),
        ("first_k(1, k=2)", "first_k is given k twice"),
        ("first_k(1, n=2)", "first_k has no parameter 'n', known are k, late"),
        ("hybrid(3)", "hybrid takes none without a name, got 1"),
        ("hybrid(selection=oort(wher='x'))", "oort has no parameter 'wher', known are "),
        ("flower.FedAvg(fraction=1)", "flower.FedAvg has no parameter 'fraction', known are "),
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


def test_compression_is_a_codec_a_chain_or_a_mapping_wherever_specs_are_taken():
    chain = Compression(up=TopK(0.01) >> Int8())
    for spec in (
        "hybrid(compression=topk(0.01) >> int8)",
        "hybrid(compression='topk(0.01) >> int8')",
        "hybrid(compression={'up': 'topk(0.01)>>int8'})",
        "hybrid(compression=compress(up=topk(0.01) >> int8))",
        compose("fedbuff(k=3)", ["compression=topk(0.01) >> int8"]),
        compose("", ["compression={'up': 'topk(0.01) >> int8'}"]),
        from_mapping({"name": "fedprox", "compression": "topk(0.01) >> int8"}),
        from_mapping({"name": "fedprox", "compression": {"up": "topk(0.01) >> int8"}}),
        with_default("first_k(2) | deadline(3)", "compression", "topk(0.01) >> int8"),
        with_default("", "compression", {"up": "topk(0.01) >> int8"}),
    ):
        assert parse(spec).settings.compression == chain, spec
    for spec in (
        compose("", ["compression=int8(rounding=stochastic)"]),
        with_default("", "compression", "int8(rounding=stochastic)"),
        "hybrid(compression=compress(up='int8(rounding=stochastic)', delta=false))",
    ):
        assert parse(spec).settings.compression.up == Int8(rounding="stochastic")
    dropout = parse(compose("", ["dropout=federated_dropout(0.5, order=rolling)"])).settings.dropout
    assert dropout.order == "rolling"
    assert parse("hybrid(dropout=0.5)").settings.dropout.rates == (0.5,)
    assert parse("hybrid(dropout=[0.5, 1])").settings.dropout.rates == (1.0, 0.5)


def test_a_federations_compression_gives_way_to_a_specs_own_and_leaves_flowers_alone():
    for spec in ("fedavg(compression=int8)", "flower.FedAvg()", "nonsense(", "unknown()"):
        assert with_default(spec, "compression", "topk") == spec


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("hybrid(compression=int8 >> topk)", "a codec must be .sparsifier."),
        ("hybrid(compression=int8 >> 3)", "only codecs join with >>"),
        ("hybrid(compression=deadline(3) >> int8)", "only codecs join with >>"),
        ("hybrid(compression=topk(2))", r"ratio must be in \(0, 1\], got 2"),
        ("hybrid(dropout=0)", r"each of dropout's rates must be in \(0, 1\], got 0"),
        ("hybrid(dropout=0.5, control=True)", "control .SCAFFOLD. must be false"),
        ("hybrid(dropout=0.5, inner=flower.FedAdam())", "dropout must be left out with inner="),
        (
            "hybrid(compression=topk, dropout=federated_dropout(0.5, 'random'))",
            "order must be 'ordered' for codecs that send few entries, got 'random'",
        ),
        (
            "hybrid(compression={'down': 'int8', 'delta': True}, dropout=0.5)",
            "compression's delta must be false",
        ),
    ],
)
def test_compressions_that_cannot_work_are_one_line(spec, words):
    with pytest.raises(ConfigError, match=words) as error:
        parse(spec)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [e["name"] for e in describe()])
def test_every_name_of_the_list_is_a_spec_and_says_what_it_is(name):
    (entry,) = [e for e in describe() if e["name"] == name]
    assert len(entry["summary"]) > 10
    assert "`" not in entry["summary"]
    needed = [key for key, default in entry["parameters"].items() if default is None]
    arguments = ", ".join(f"{key}=3" for key in needed)
    call = f"{name}({arguments})"
    kind = entry["kind"]
    if kind == "estimate":
        call = f"fedqueue(estimate={call})"
    elif kind == "codec":
        call = f"hybrid(compression={call})"
    elif name == "compass":
        call = "hybrid(work=compass, cutoff=compass)"
    elif kind != "strategy":
        call = f"hybrid({kind}={call})"
    assert isinstance(parse(call), HybridStrategy)


def test_defaults_of_the_list_are_specs_themselves():
    for entry in describe():
        given = {k: v for k, v in entry["parameters"].items() if v is not None}
        if entry["kind"] == "strategy":
            assert isinstance(parse(compose(entry["name"], [f"{k}={v}" for k, v in given.items()])), Strategy)


def test_every_preset_names_its_paper():
    papers = {e["name"]: e["paper"] for e in describe() if e["kind"] == "strategy"}
    assert all(papers.values())
    assert "2106.06639" in papers["fedbuff"]


@pytest.mark.parametrize(
    ("spec", "settings", "meant"),
    [
        ("fedbuff", ["k=4"], "fedbuff(k=4)"),
        ("fedbuff(k=10)", ["k=4", "server_lr=0.5"], "fedbuff(k=4, server_lr=0.5)"),
        ("fedbuff", ["staleness=hinge(a=5)"], "fedbuff(staleness=hinge(a=5))"),
        ("", ["min_nodes=3"], "hybrid(min_nodes=3)"),
        ("deadline(5) | first_k(2)", ["seed=1"], "hybrid(cutoff=deadline(5) | first_k(2), seed=1)"),
        ("deadline(5)", ["seed=1"], "hybrid(cutoff=deadline(5), seed=1)"),
        ("hybrid", ["refill=true", "cutoff=first_k(1)"], "hybrid(refill=True, cutoff=first_k(1))"),
        ("hybrid", ["lost_after_s=none"], "hybrid(lost_after_s=None)"),
        ("hybrid", ["inclusion=inverse"], "hybrid(inclusion='inverse')"),
        ("hybrid", ["cutoff=first_k(2/3)"], "hybrid(cutoff=first_k(2/3))"),
        ("fedcompass", ["q_min=1", "q_min=2"], "fedcompass(q_min=2)"),
        (
            "hybrid",
            ["""selection=oort(0.5, where='site == "hpc"')"""],
            """hybrid(selection=oort(0.5, where='site == "hpc"'))""",
        ),
    ],
)
def test_settings_are_added_to_the_outermost_call(spec, settings, meant):
    assert parse(compose(spec, settings)).settings == parse(meant).settings


def test_a_block_of_yaml_says_the_same():
    block = {"name": "fedbuff", "k": 4, "staleness": {"name": "hinge", "a": 5}, "seed": None}
    assert parse(from_mapping(block)).settings == parse("fedbuff(k=4, staleness=hinge(a=5))").settings
    assert from_mapping("first_k(2) | deadline(9)") == "first_k(2) | deadline(9)"
    block = {"name": "hybrid", "work": {"name": "fixed_work", "config": {"lr": 0.1}}, "seed": 3}
    assert parse(from_mapping(block)).settings.work.config == {"lr": 0.1}
    block["again"] = block
    with pytest.raises(ConfigError, match="too deeply nested"):
        from_mapping(block)
    inner = {"name": "hybrid", "inner": "flower.FedAdam(eta=0.01)", "cutoff": "first_k(2) | deadline(9)"}
    assert parse(from_mapping(inner)).settings.inner.eta == 0.01


@pytest.mark.parametrize("setting", ["k", "=3", "k=", "a b=3", "k-1=3", "", "1k=2"])
def test_a_setting_that_is_none_is_refused(setting):
    with pytest.raises(ConfigError, match="--set must be key=value"):
        compose("fedbuff", [setting])


@pytest.mark.parametrize("block", [3, [], {}, {"name": 3}, {"k": 4}, {"name": "hybrid", "seed": object()}])
def test_a_block_that_is_none_is_refused(block):
    with pytest.raises(ConfigError, match="strategy"):
        from_mapping(block)


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_setting_does_worse_than_a_config_error(spec, setting):
    try:
        parse(compose(spec, [f"k={setting}"]))
    except ConfigError as error:
        words = str(error)
    else:
        words = ""
    assert len(words.splitlines()) <= 1


def test_presets_refuse_what_they_set_themselves():
    with pytest.raises(ConfigError, match="FedBuff sets cutoff itself"):
        parse("fedbuff(cutoff=deadline(3))")
    with pytest.raises(ConfigError, match="refill=True keeps every node busy"):
        parse("hybrid(refill=True)")
    with pytest.raises(ConfigError, match="server_lr must be left out with inner="):
        parse("hybrid(inner=flower.FedAdam(), server_lr=0.5)")


def test_a_request_may_ask_to_resume(tmp_path, monkeypatch):
    (tmp_path / "requests").mkdir()
    request = {"run": "r", "run_dir": str(tmp_path / "runs/r"), "strategy": "", "nodes": 2, "resume": True}
    (tmp_path / "requests/7.json").write_text(json.dumps(request))
    monkeypatch.setenv("FLOWER_HPC_STATE", str(tmp_path))
    settings = configured(Context(7, 0, {}, RecordDict(), {})).settings
    assert (settings.resume, settings.facts) == (True, tmp_path / "facts.jsonl")


@pytest.mark.parametrize("entry", describe(), ids=lambda entry: entry["name"])
def test_what_is_missing_is_told_in_our_words(entry):
    needed = [key for key, default in entry["parameters"].items() if default is None]
    wrong = refusal(entry["name"], NAMES[entry["name"]], [], {})
    assert [part.partition(":")[0] for part in wrong.partition(" needs ")[2].split("; ") if part] == needed
    assert not needed or wrong.count(": ") == len(needed), "each is explained"
