"""A condition says what Python would, knows when it does not know, and runs nothing."""

import pickle
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flower_hpc.errors import ConfigError
from flower_hpc.strategies.criteria import FIELDS, Where

NODE = {
    "name": "a-1",
    "site": "hpc",
    "cores": 8,
    "gpus": 2,
    "gpu_model": "NVIDIA H100 80GB",
    "gpu_mem_gb": 80.0,
    "gflops": None,
    "round_trip_s": float("nan"),
    "label_spot": True,
    "label_rack": "7",
    "label_bias": -2,
}


@pytest.mark.parametrize(
    "text",
    [
        'site == "hpc" and gpu_mem_gb >= 16',
        'name in ("a-1", "b-2")',
        'name not in ["x"]',
        "name not in ()",
        'not site == "cloud"',
        "8 <= cores < 64",
        'gpu_model == "H100" or gpus > 1',
        '"H100" in gpu_model',
        'name in "a-1 a-2"',
        "label_spot",
        "label_spot == True and not label_spot != True",
        "label_bias == -2",
        "label_bias in (-2, 'x')",
        "cores in (8.0, 16)",
        "True",
        "  (cores == 8\n  or cores == 9)\n",
        "gflops > 5 or cores == 8",
        "not (gflops > 5 and cores == 9)",
    ],
)
def test_true_of_the_node(text):
    assert Where(text).matches(NODE)
    assert not Where(f"not ({text.strip()})").matches(NODE)


@pytest.mark.parametrize(
    "text",
    [
        "gflops > 500",
        "memory_gb > 1",
        "round_trip_s != 1",
        'cores < "9"',
        'cores == "8"',
        'cores != "8"',
        "label_rack == 7",
        "label_rack",
        "label_spot == 1",
        "label_none in ('a', 'b')",
        "cores in ('a', 'b')",
        "'8' in cores",
        "gflops > 5 or cores == 9",
        "gflops > 5 and cores == 8",
        "1 < gflops < 3",
    ],
)
def test_the_unknown_is_neither_true_nor_false(text):
    assert not Where(text).matches(NODE)
    assert not Where(f"not ({text})").matches(NODE)


def test_a_false_part_decides_a_chain_with_an_unknown_one():
    assert Where("not (9 < cores < gflops)").matches(NODE)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must be a condition"),
        (None, "must be a condition"),
        ("site = 'hpc'", "error"),
        ("site == 'hpc", "error"),
        ("cores >", "error"),
        ("core > 3", "'core': did you mean cores\\? known are name, site"),
        ("__import__ == 1", "'__import__': known are"),
        ("label_ == 1", "known are"),
        ("__import__('os').system('ls')", "allowed are and, or, not"),
        ("cores.real == 8", "'cores.real'"),
        ("cores + 1 > 3", "'cores \\+ 1'"),
        ("name[0] == 'a'", "'name\\[0\\]'"),
        ("name is True", "'name is True'"),
        ("name == None", "'None'"),
        ("name == b'a'", "allowed are"),
        ("name == f'{site}'", "allowed are"),
        ("cores == 1j", "'1j'"),
        ("cores == +1", "allowed are"),
        ("cores == --1", "allowed are"),
        ("cores == -True", "allowed are"),
        ("(cores := 3) == 3", "allowed are"),
        ("cores if gpus else name", "allowed are"),
        ("lambda: 1", "allowed are"),
        ("[c for c in name]", "allowed are"),
        ("cores", "compared with something"),
        ("'text'", "allowed are"),
        ("1", "allowed are"),
        ("site == ('a', 'b')", "goes with in"),
        ("('a', 'b') == site", "allowed are"),
        ("site in 5", "in takes a list"),
        ("site in ('a')  and cores in (8)", "in takes a list"),
        ("site in (name,)", "a list holds"),
        ("site in (('a',),)", "allowed are"),
        ("(cores == 8) == True", "allowed are"),
        ("cores == 8, gpus == 2", "allowed are"),
        ("cores == 8 # yes\0", "where"),
        ("cores == " + "9" * 2000, "at most 1000 characters"),
        ("not " * 200 + "label_a", "20 levels"),
        ("(" * 400 + "label_a" + ")" * 400, "where"),
        ("-" * 900 + "1 == cores", "where"),
        ("a" + ".b" * 400 + " == 1", "where cannot use"),
    ],
)
def test_all_else_is_refused_in_one_line(text, says):
    with pytest.raises(ConfigError, match=says) as error:
        Where(text)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_needs_are_the_names_used():
    assert Where('site == "name" and not (label_x or 2 < cores < gpus)').needs == {
        "site",
        "label_x",
        "cores",
        "gpus",
    }
    assert Where("True").needs == frozenset()


def test_equal_texts_are_equal_values():
    assert Where("cores > 3") == Where("cores > 3") != Where("cores > 4")
    assert len({Where("cores > 3"), Where("cores > 3")}) == 1
    assert pickle.loads(pickle.dumps(Where("cores > 3"))).matches(NODE)


numbers = st.integers(-3, 3)
comparisons = st.tuples(
    st.sampled_from(FIELDS[2:6]), st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), numbers
)
conditions = st.recursive(
    comparisons.map(lambda c: f"{c[0]} {c[1]} {c[2]}"),
    lambda c: st.one_of(
        st.tuples(c, st.sampled_from(["and", "or"]), c).map(lambda t: f"({' '.join(t)})"),
        c.map("not {}".format),
    ),
    max_leaves=5,
)


@given(conditions, st.fixed_dictionaries({name: numbers for name in FIELDS[2:6]}))
def test_with_every_fact_known_it_says_what_python_says(text, facts):
    assert Where(text).matches(facts) is eval(text, {}, dict(facts))


@given(
    st.text(max_size=60),
    st.dictionaries(st.sampled_from(FIELDS), st.none() | st.text() | st.floats() | st.lists(numbers)),
)
def test_any_text_is_refused_or_answered(text, facts):
    with suppress(ConfigError):
        assert Where(text).matches(facts) in (True, False)
