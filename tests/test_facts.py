"""Every fact is read once, whole, and whatever else the file holds is passed over."""

import json
import logging
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_hpc.strategies.loop.facts import Fact, FactsReader, NodeFact


def line(name="a-1", state="running", reason="", time=1.5, **more):
    return json.dumps({"name": name, "state": state, "reason": reason, "time": time} | more) + "\n"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "facts.jsonl"


def append(path, text):
    with path.open("ab") as file:
        file.write(text if isinstance(text, bytes) else text.encode())


def names(facts):
    return [fact.name for fact in facts]


def test_each_fact_is_read_once(path):
    reader = FactsReader(path)
    assert reader.read() == []  # no file yet
    append(path, line("é", "preempted", "priority", 3, node="c1-17"))
    assert reader.read() == [Fact("é", "preempted", "priority", 3.0)]
    assert reader.read() == []
    append(path, line("b") + "\n" + line("c"))
    assert names(reader.read()) == ["b", "c"]


def test_without_a_path_there_are_none():
    assert FactsReader(None).read() == []


def test_nothing_new_costs_one_stat(path, monkeypatch):
    reader = FactsReader(path)
    append(path, line() + '{"half')
    reader.read()
    monkeypatch.setattr(type(path), "open", None)
    assert reader.read() == []


def test_a_half_written_line_is_left_for_next_time(path):
    reader, text = FactsReader(path), line("é").encode()
    append(path, line("a").encode() + text[:11])
    assert names(reader.read()) == ["a"]
    assert reader.read() == []
    append(path, text[11:])
    assert names(reader.read()) == ["é"]


def test_a_truncated_file_is_read_from_its_start(path):
    reader = FactsReader(path)
    append(path, line("a") + line("b"))
    reader.read()
    path.write_text(line("c"))
    assert names(reader.read()) == ["c"]


def test_a_replaced_file_is_read_from_its_start(path):
    reader = FactsReader(path)
    append(path, line("a"))
    reader.read()
    new = path.with_suffix(".new")
    append(new, line("b") + line("c"))
    os.replace(new, path)
    assert names(reader.read()) == ["b", "c"]


def test_a_resumed_run_goes_on_where_it_was(path):
    first, second = FactsReader(path), FactsReader(path)
    append(path, line("a") + '{"name": "b"')
    first.read()
    second.position = first.position
    assert second.read() == []
    append(path, line("x")[len('{"name": "b"') :])
    assert names(second.read()) == ["b"]


@pytest.mark.parametrize("position", [3, 10_000])
def test_a_position_in_another_file_reads_from_the_start(path, position):
    reader = FactsReader(path)
    reader.position = position
    append(path, line("a") + line("b"))
    assert names(reader.read()) == ["a", "b"]


@pytest.mark.parametrize(
    "bad",
    [
        b"not json\n",
        b"[1]\n",
        b"{\r}\n",
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b"9" * 5000 + b"\n",
        line(name=3).encode(),
        line(state=None).encode(),
        line(reason=["x"]).encode(),
        line(time="now").encode(),
        line(time=True).encode(),
        line(time=float("nan")).encode(),
        line(time=10**400).encode(),
        b'{"name": "a", "state": "running", "time": 1}\n',
        b"\0\0\0\n",
    ],
    ids=lambda bad: repr(bad[:40]),
)
def test_a_bad_line_is_one_warning(path, caplog, bad):
    append(path, line("a").encode() + bad + line("b").encode())
    with caplog.at_level(logging.WARNING, "flwr.hpc"):
        assert names(FactsReader(path).read()) == ["a", "b"]
    assert len(caplog.records) == 1
    assert f"at byte {len(line('a'))} of {path}" in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_told_once(path, caplog):
    append(path, line("a"))
    path.chmod(0)
    reader = FactsReader(path)
    assert reader.read() == reader.read() == []
    assert len(caplog.records) == 1
    path.chmod(0o600)
    assert names(reader.read()) == ["a"]


def test_a_folder_in_its_place_is_told_once(tmp_path, caplog):
    reader = FactsReader(tmp_path)
    assert reader.read() == reader.read() == []
    assert len(caplog.records) == 1


def test_words_sort_into_gone_waiting_leaving_and_up():
    def facts(word):
        fact = Fact("a", word, "", 0.0)
        return fact.gone, fact.waits, fact.leaves, fact.up

    assert facts("pending") == (False, True, False, False)
    assert facts("running") == (False, False, False, True)
    assert facts("leaving") == (False, False, True, False)
    assert facts("requeued") == (False, False, False, False)
    for word in set(NodeFact) - {NodeFact.PENDING, NodeFact.RUNNING, NodeFact.LEAVING}:
        assert facts(str(word)) == (True, False, False, False)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text("ab", min_size=1), max_size=5), st.lists(st.integers(1, 60), max_size=8))
def test_any_cutting_of_the_writes_reads_the_same(tmp_path_factory, given_names, cuts):
    path = tmp_path_factory.mktemp("facts") / "facts.jsonl"
    reader, found = FactsReader(path), []
    data = "".join(line(name) for name in given_names).encode()
    for cut in [*cuts, len(data)]:
        append(path, data[:cut])
        data = data[cut:]
        found += names(reader.read())
    assert found == given_names
