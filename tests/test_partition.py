"""Partitions: disjoint, complete, the same everywhere, and refused where they cannot be."""

import logging

import numpy as np
import pytest

from flower_hpc.errors import ConfigError
from flower_hpc.tasks.options import TaskOptions
from flower_hpc.tasks.partition import partition

LABELS = np.repeat(np.arange(10), 140)
SPREAD = np.random.default_rng(1).permutation(np.repeat(np.arange(10), 101))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def options(partitioner, **more):
    task = "shakespeare" if partitioner == "natural" else "digits"
    return TaskOptions(task=task, partitioner=partitioner, **more)


def classes(parts, labels):
    return [set(labels[part].tolist()) for part in parts]


@pytest.mark.parametrize("name", ["iid", "dirichlet", "pathological", "shards"])
@pytest.mark.parametrize("nodes", [1, 7])
def test_parts_are_disjoint_and_complete(name, nodes):
    parts = partition(SPREAD, options(name, classes_per_node=10 if nodes == 1 else 3), nodes)
    assert len(parts) == nodes
    assert min(map(len, parts)) > 0
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(SPREAD)))


@pytest.mark.parametrize("name", ["iid", "dirichlet", "pathological", "shards"])
def test_a_seed_decides_the_parts_with_or_without_the_cache(name, tmp_path, monkeypatch):
    first = partition(SPREAD, options(name, seed=3, classes_per_node=3), 5)
    cached = partition(SPREAD, options(name, seed=3, classes_per_node=3), 5)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another-node"))
    elsewhere = partition(SPREAD, options(name, seed=3, classes_per_node=3), 5)
    other = partition(SPREAD, options(name, seed=4, classes_per_node=3), 5)
    for a, b, c in zip(first, cached, elsewhere, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_a_damaged_cache_is_made_anew(tmp_path):
    first = partition(SPREAD, options("iid"), 3)
    (entry,) = tmp_path.rglob("*.npz")
    entry.write_bytes(b"half a file")
    for a, b in zip(first, partition(SPREAD, options("iid"), 3), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("nodes", "k"), [(4, 3), (5, 2), (10, 1), (10, 3), (2, 5), (30, 2)])
def test_pathological_nodes_hold_k_classes_and_all_classes_are_held(nodes, k, caplog):
    parts = partition(LABELS, options("pathological", classes_per_node=k), nodes)
    assert {len(held) for held in classes(parts, LABELS)} == {k}
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(LABELS)))
    assert not caplog.records


def test_pathological_with_too_few_places_names_the_unused_classes_in_one_line(caplog):
    with caplog.at_level(logging.WARNING):
        parts = partition(LABELS, options("pathological", classes_per_node=2), 3)
    held = set.union(*classes(parts, LABELS))
    assert len(held) == 6
    (record,) = caplog.records
    assert str(sorted(set(range(10)) - held)) in record.getMessage()


def test_four_nodes_with_a_shard_each_hold_three_of_ten_equal_classes():
    parts = partition(LABELS, options("shards"), 4)
    assert [len(part) for part in parts] == [350] * 4
    assert [len(held) for held in classes(parts, LABELS)] == [3] * 4


def test_shards_differ_by_one_example_each_and_span_few_classes():
    parts = partition(SPREAD, options("shards", shards_per_node=2), 9)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 2
    assert max(len(held) for held in classes(parts, SPREAD)) <= 4


def test_a_small_alpha_is_more_skewed_than_a_large_one():
    def largest_share(alpha):
        parts = partition(LABELS, options("dirichlet", alpha=alpha), 5)
        return np.mean([np.bincount(LABELS[p], minlength=10).max() / len(p) for p in parts])

    assert largest_share(0.1) > 0.3 > largest_share(100.0)


def test_natural_gives_each_node_one_eligible_role():
    roles = np.array([0] * 5 + [-1] * 3 + [2] * 6 + [3] * 7)
    parts = partition(np.zeros(21, int), options("natural"), 3, roles)
    assert sorted(roles[part].tolist() for part in parts) == [[0] * 5, [2] * 6, [3] * 7]


@pytest.mark.parametrize(
    ("how", "nodes", "line"),
    [
        (options("iid"), 0, "num-partitions must be at least 1, got 0"),
        (options("iid"), 2000, "num-partitions must be at most the 1400 examples, got 2000"),
        (options("shards", shards_per_node=800), 2, "at most the 1400 examples, got 1600"),
        (options("dirichlet", alpha=1e-4), 100, "alpha must be larger"),
        (options("pathological", classes_per_node=10), 141, "an example for each holder"),
    ],
)
def test_what_cannot_be_shared_out_is_refused_in_one_line(how, nodes, line):
    with pytest.raises(ConfigError, match=line) as error:
        partition(LABELS, how, nodes)
    assert "\n" not in str(error.value)


def test_more_nodes_than_roles_are_refused():
    with pytest.raises(ConfigError, match="at most the 2 roles with enough text, got 3"):
        partition(np.zeros(9, int), options("natural"), 3, np.array([0, 1, -1] * 3))
