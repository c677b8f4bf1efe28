"""What is saved comes back bit for bit, and nothing damaged comes back at all."""

import logging
import random
import resource
import shutil
import signal

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn
from safetensors.numpy import load_file, save_file

from flower_hpc.errors import ConfigError, FlowerHpcError, RunError
from flower_hpc.records import to_record
from flower_hpc.storage import load_tree, pack, treefile, unpack
from flower_hpc.strategies.loop.checkpoint import Checkpoints
from processes import named

TREE = {"w": np.arange(3.0), "n": [1, "é", None], "h": np.array([1, 2], ">i2")}


def same(a, b):
    """Equal in type, layout and every bit, at any depth."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items()))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, ArrayRecord):
        return list(a) == list(b) and all(vars(a[k]) == vars(b[k]) for k in a)
    if isinstance(a, np.ndarray):
        fortran = a.flags.f_contiguous == b.flags.f_contiguous or not b.flags.forc
        return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()) and fortran
    if isinstance(a, np.generic):
        return (a.dtype, a.tobytes()) == (b.dtype, b.tobytes())
    return a == b if type(a) is int else repr(a) == repr(b)


dtypes = st.one_of(
    hn.scalar_dtypes(),
    hn.unicode_string_dtypes(),
    hn.byte_string_dtypes(),
    hn.array_dtypes(hn.integer_dtypes(), max_size=3),
)
arrays = dtypes.flatmap(lambda d: hn.arrays(d, hn.array_shapes(min_dims=0, min_side=0, max_side=3)))
arrays = st.one_of(arrays, arrays.map(np.asfortranarray), arrays.map(lambda a: a[::-1] if a.ndim else a))
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**200), 2**200),
    st.floats(),
    st.text(st.characters()),
    st.binary(max_size=9),
    arrays,
    arrays.filter(lambda a: a.size).map(lambda a: a.flat[0]),
    st.dictionaries(st.text("abc/.", min_size=1), hn.arrays("f4", 2), max_size=2).map(to_record),
)
keys = st.one_of(st.text(), st.integers(), st.tuples(st.text(), st.integers()))
trees = st.recursive(
    leaves,
    lambda t: st.one_of(
        st.lists(t, max_size=3), st.lists(t, max_size=3).map(tuple), st.dictionaries(keys, t, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=300)
@given(trees)
def test_packing_is_undone_exactly(tree):
    assert same(unpack(*pack(tree)), tree)


@settings(deadline=None, max_examples=50)
@given(tree=trees)
def test_a_file_is_undone_exactly(tmp_path_factory, tree):
    path = tmp_path_factory.mktemp("file") / "x"
    treefile.write_file(path, *pack(tree))
    assert same(load_tree(path), tree)


@pytest.mark.parametrize(
    "value",
    [
        random.Random(3).getstate(),
        np.random.default_rng(3).bit_generator.state,
        {3: np.ones(2), "3": 1, (1, "a"): 2},
        [float("nan"), float("-inf"), -0.0, 10**6000],
        {"tuple": [1], "array": {"dict": {}}},
        '\ud800 \x00 "\\',
        np.zeros((0, 3), "f2"),
        np.array(1 + 2j, "c16"),
        np.longdouble("0.1"),
        np.datetime64("NaT"),
        np.zeros(3, "S0"),
        np.zeros((2, 2), [("a", "i1"), ("b", ">f8", (2,))]),
        np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
        np.str_(""),
        ArrayRecord({"odd": Array("int4", (7,), "my.codec", b"\x00\x01")}),
        ArrayRecord(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_awkward_comes_back(tmp_path, value):
    store = Checkpoints(tmp_path)
    store.save(1, value)
    assert same(store.latest(), (1, value))


def test_bfloat16_comes_back():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    value = np.array([1, 2.5, float("nan")], ml_dtypes.bfloat16)
    assert same(unpack(*pack([value, value[0]])), [value, value[0]])


def test_arrays_come_back_writable_and_known_dtypes_are_readable_by_others(tmp_path):
    store = Checkpoints(tmp_path)
    path = store.save(1, TREE)
    store.latest()[1]["w"][0] = 7
    np.testing.assert_array_equal(load_file(path)["0"], TREE["w"])


def test_contiguous_arrays_are_not_copied():
    data = [np.zeros((3, 4)), np.zeros((3, 4), ">f8"), np.zeros((3, 4), order="F")]
    assert all(np.shares_memory(x, y) for x, y in zip(data, pack(data)[1].values(), strict=True))


class Named(dict):
    """A dict that is not one."""


@pytest.mark.parametrize("value", [{1}, object(), Named(), np.array([None]), np.ma.zeros(2)], ids=named)
def test_what_would_not_come_back_is_refused_by_its_place(value):
    with pytest.raises(TypeError, match=r"^state\['a'\]\[1\] is an? "):
        pack({"a": (0, value)})


def test_a_tree_without_end_is_refused():
    loop = []
    loop.append(loop)
    with pytest.raises(TypeError, match="100 levels"):
        pack(loop)


def test_the_newest_are_kept_and_stale_files_removed(tmp_path):
    store = Checkpoints(tmp_path / "new" / "folder", keep=2)
    store.save(8, TREE)
    (store.folder / "round-000007.safetensors.tmp").write_bytes(b"half")
    (store.folder / "notes.txt").write_text("not ours")
    for number in (9, 10, 1_000_000):
        assert store.save(number, [number]).name == f"round-{number:06d}.safetensors"
    names = ["notes.txt", "round-000010.safetensors", "round-1000000.safetensors"]
    assert sorted(p.name for p in store.folder.iterdir()) == names
    assert store.latest() == (1_000_000, [1_000_000])


def test_the_one_just_saved_is_never_pruned(tmp_path):
    store = Checkpoints(tmp_path, keep=2)
    for number in (10, 11, 12, 3):
        path = store.save(number, number)
    assert path.exists()


def test_saving_a_number_again_replaces_it(tmp_path):
    store = Checkpoints(tmp_path)
    store.save(1, "old")
    store.save(1, "new")
    assert store.latest() == (1, "new")


@pytest.mark.parametrize("keep", [1, 0, True, 2.0, "3"])
def test_fewer_than_two_are_refused(tmp_path, keep):
    with pytest.raises(ConfigError, match="keep must be"):
        Checkpoints(tmp_path, keep)


def test_without_files_there_is_none(tmp_path):
    assert Checkpoints(tmp_path / "missing").latest() is None
    assert Checkpoints(tmp_path).latest() is None


def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path, caplog):
    caplog.set_level(logging.CRITICAL)
    store = Checkpoints(tmp_path)
    path = store.save(1, TREE)
    whole = path.read_bytes()
    damaged = [
        whole[:i] + bytes([whole[i] ^ 1 << bit]) + whole[i + 1 :]
        for i in range(len(whole))
        for bit in range(8)
    ]
    for data in damaged + [whole[:n] for n in range(len(whole))] + [whole + b"\0"]:
        path.write_bytes(data)
        assert store.latest() is None
    path.write_bytes(whole)
    assert same(store.latest(), (1, TREE))


def test_damage_falls_back_to_the_one_before_and_is_told(tmp_path, caplog, monkeypatch):
    store = Checkpoints(tmp_path, keep=9)
    for number in (1, 2, 3):
        path = store.save(number, number)
    path.write_bytes(path.read_bytes()[:-1])
    save_file({"w": np.ones(2)}, tmp_path / "round-000004.safetensors")
    (tmp_path / "round-000005.safetensors").write_text("<html>")
    monkeypatch.setattr(treefile, "VERSION", 2)
    store.save(6, 6)
    monkeypatch.undo()
    store._files()
    with caplog.at_level(logging.WARNING, "flwr.hpc"):
        assert store.latest() == (2, 2)
    assert [line.partition(":")[0] for line in store.damaged] == [
        f"round-00000{n}.safetensors" for n in (6, 5, 4, 3)
    ]
    assert "format '2'" in store.damaged[0]
    assert "not a checkpoint" in store.damaged[2]
    assert len(caplog.records) == 4
    assert "round-000003.safetensors" in caplog.text


def test_a_full_disk_is_one_line_and_leaves_the_old_ones(tmp_path, monkeypatch):
    store = Checkpoints(tmp_path)
    store.save(1, 1)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        with pytest.raises(RunError, match="File too large") as error:
            store.save(2, np.zeros(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["round-000001.safetensors"]
    assert store.latest() == (1, 1)


def test_a_folder_that_cannot_be_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    store = Checkpoints(tmp_path / "file")
    with pytest.raises(FlowerHpcError, match="cannot write"):
        store.save(1, 1)
    with pytest.raises(FlowerHpcError, match="cannot read"):
        store.latest()


def test_a_text_too_long_to_read_again_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(treefile, "MAX_TEXT", 10)
    with pytest.raises(RunError, match="besides its arrays"):
        Checkpoints(tmp_path).save(1, "x" * 20)


def test_a_copied_folder_reads_the_same(tmp_path):
    Checkpoints(tmp_path / "a").save(1, TREE)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert same(Checkpoints(tmp_path / "b").latest(), (1, TREE))
