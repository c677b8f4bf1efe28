"""What nodes keep of their updates and take back: error feedback, and its state on their disks."""

import os
import time

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp.mod import LocalDpMod, fixedclipping_mod
from hypothesis import given, settings
from hypothesis import strategies as st

from compressed import SIZE, TARGETS, distance, model, run
from conftest import grid_of, make_app, stepping
from flower_hpc import protocol
from flower_hpc.compression import Compression, CompressUpdates, Int8, TopK
from flower_hpc.compression.feedback import Feedback
from flower_hpc.compression.keeping import Keeping, run_folder
from flower_hpc.compression.update import Seed, decode
from flower_hpc.errors import ConfigError
from flower_hpc.records import densify, to_weights
from flower_hpc.storage import save_tree
from flower_hpc.strategies import HybridStrategy
from flower_hpc.transport import InProcessGrid


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(0, 1000))
def test_nothing_is_lost_whatever_becomes_of_updates(arrives, seed):
    """What was received, what waits to be sent again and what is on its way sum up to all updates."""
    rng, how = np.random.default_rng(seed), Compression(up=TopK(0.1) >> Int8(64), small=0)
    feedback, received, total = Feedback(), np.zeros(500), np.zeros(500)
    heard: list[str] = []
    for number, arrived in enumerate(arrives):
        update = {"w": rng.normal(size=500).astype(np.float32)}
        total += update["w"]
        feedback.hear(heard, [])
        record = feedback.send(update, how, str(number), Seed(str(number)))
        heard = [str(number)] if arrived else []
        received += densify(decode(record))["w"] if arrived else 0
    feedback.hear(heard, [])
    assert not feedback.pending
    kept = feedback.residual.get("w", np.zeros(500))
    np.testing.assert_allclose(received + kept, total, atol=1e-4)


def test_what_waits_is_neither_forgotten_nor_taken_back():
    feedback, how = Feedback(), Compression(up=TopK(0.5), small=0)
    feedback.send({"w": np.float32([1, 4])}, how, "a", Seed())
    feedback.hear([], ["a"])
    assert list(feedback.pending) == ["a"]
    np.testing.assert_array_equal(feedback.residual["w"], [1, 0])
    feedback.hear([], [])
    np.testing.assert_array_equal(feedback.residual["w"], [1, 4])


def test_decay_fades_what_is_kept():
    feedback, how = Feedback(), Compression(up=TopK(0.5), small=0, decay=0.5)
    feedback.send({"w": np.float32([1, 4])}, how, "a", Seed())
    record = feedback.send({"w": np.float32([0, 0])}, how, "b", Seed())
    np.testing.assert_array_equal(densify(decode(record))["w"], [0.5, 0])


def test_momentum_gathers_what_was_not_sent_and_is_masked_where_it_was():
    feedback, how = Feedback(), Compression(up=TopK(0.5), small=0, momentum=0.5)
    feedback.send({"w": np.float32([1, 4])}, how, "a", Seed())  # u = (1, 4), e = (1, 0)
    record = feedback.send({"w": np.float32([1, 2])}, how, "b", Seed())  # u = (1.5, 2), p = (2.5, 2)
    np.testing.assert_array_equal(densify(decode(record))["w"], [2.5, 0])
    np.testing.assert_array_equal(feedback.velocity["w"], [0, 2])
    np.testing.assert_array_equal(feedback.residual["w"], [0, 2])


def test_residuals_of_another_model_are_dropped():
    feedback, how = Feedback(), Compression(up=TopK(0.5), small=0)
    feedback.send({"w": np.float32([1, 4])}, how, "a", Seed())
    record = feedback.send({"w": np.float32([1, 2, 3, 4])}, how, "b", Seed())
    np.testing.assert_array_equal(densify(decode(record))["w"], [0, 0, 3, 4])


def test_lossless_and_unbiased_codecs_keep_nothing():
    for codec, keeps in (("zstd", 0), ("int8(64, stochastic)", 0), ("randomk(0.1, 0, true)", 0), ("int8", 1)):
        assert Compression(up=codec).remembers == bool(keeps)
    assert not Compression(up="int8", feedback=False).remembers


def train_message(update_config, size=SIZE):
    content = RecordDict({"arrays": model(size), "config": ConfigRecord(update_config)})
    return Message(content, 1, "train")


def ask(app, context, ticket, received=(), waiting=(), run_name="r", how=None):
    config = {
        protocol.REPLY_AS: protocol.UPDATE,
        protocol.VERSION: 0,
        protocol.RUN: run_name,
        protocol.TICKET: ticket,
        protocol.RECEIVED: list(received),
        protocol.WAITING: list(waiting),
        protocol.COMPRESSION: (how or Compression(up=TopK(0.5))).ask(),
    }
    reply = app(train_message(config), context)
    return densify(decode(reply.content["arrays"]))["w"], protocol.mark_of(reply)


def node(name="a-1"):
    return Context(1, 1, {"partition-id": 0, "name": name}, RecordDict(), {})


@pytest.fixture
def app():
    InProcessGrid(make_app(stepping(TARGETS)), 1)  # says who we are, so that messages can be made here
    return make_app(stepping(TARGETS), [CompressUpdates()])


@pytest.mark.parametrize("on_disk", [True, False])
def test_residuals_survive_from_message_to_message(app, tmp_path, monkeypatch, on_disk):
    monkeypatch.delenv(protocol.NODE_STATE_ENV, raising=False)
    if on_disk:
        monkeypatch.setenv(protocol.NODE_STATE_ENV, str(tmp_path))
    context = node()
    first, mark = ask(app, context, "t1")
    assert mark.ticket == "t1"
    second, _ = ask(app, node() if on_disk else context, "t2", received=["t1"])
    new = (first == 0) & (second != 0)
    assert new.sum() > 100
    np.testing.assert_allclose(second[new], 2 * TARGETS[0][new])
    assert np.count_nonzero(first) == np.count_nonzero(second) == SIZE // 2
    other, _ = ask(app, node() if on_disk else context, "t3", run_name="another")
    np.testing.assert_array_equal(other, first)  # of another run nothing is known
    assert bool(list(tmp_path.rglob("*.safetensors"))) == on_disk


def test_what_an_earlier_codec_left_is_sent_by_the_next(app, tmp_path, monkeypatch):
    monkeypatch.setenv(protocol.NODE_STATE_ENV, str(tmp_path))
    first, _ = ask(app, node(), "t1")
    second, _ = ask(app, node(), "t2", received=["t1"], how=Compression())
    np.testing.assert_allclose(first + second, 2 * TARGETS[0], rtol=1e-6)


def test_a_lost_update_is_sent_again(app, tmp_path, monkeypatch):
    monkeypatch.setenv(protocol.NODE_STATE_ENV, str(tmp_path))
    exact = Compression(up=TopK(0.5))
    first, _ = ask(app, node(), "t1", how=exact)
    again, _ = ask(app, node(), "t2", how=exact)  # which says nothing of t1
    np.testing.assert_allclose(again[first != 0], 2 * first[first != 0], rtol=1e-6)


def test_a_damaged_state_starts_anew_and_a_full_disk_stops_nobody(app, tmp_path, monkeypatch):
    monkeypatch.setenv(protocol.NODE_STATE_ENV, str(tmp_path))
    first, _ = ask(app, node(), "t1")
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-7] + b"1234567")
    again, mark = ask(app, node(), "t2", received=["t1"])
    np.testing.assert_array_equal(again, first)
    assert mark.ticket == "t2"

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("flower_hpc.compression.keeping.save_tree", full)
    update, mark = ask(app, node(), "t3", received=["t2"])
    assert np.count_nonzero(update) == SIZE // 2
    assert mark.ticket == ""  # it would not take it back
    assert not list(tmp_path.rglob("*.safetensors"))


def test_files_of_another_kind_start_anew(app, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv(protocol.NODE_STATE_ENV, str(tmp_path))
    first, _ = ask(app, node(), "t1")
    (path,) = tmp_path.rglob("*.safetensors")
    nan = {"w": np.full(SIZE, np.nan, np.float32)}
    foreign = [{"hello": 1}, [], 7, {"residual": 3, "velocity": {}, "pending": {}}]
    foreign += [{"residual": {"w": "x"}, "velocity": {}, "pending": {}}]
    foreign += [{"residual": {}, "velocity": {}, "pending": {"t": 3}}]
    foreign += [{"residual": nan, "velocity": {}, "pending": {}}]
    for tree in foreign:
        save_tree(path, tree)
        again, mark = ask(app, node(), "t2")
        np.testing.assert_array_equal(again, first)
        assert mark.ticket == "t2"
    assert len([r for r in caplog.records if "starts anew" in r.getMessage()]) == len(foreign) - 1


def test_what_grows_beyond_all_bounds_is_dropped_and_the_node_goes_on():
    feedback, how = Feedback(), Compression(up=TopK(0.5), small=0)
    for number in range(5):
        update = {"w": np.array([3e4, 1e4, 2e4, 1e4], np.float16)}
        record = feedback.send(update, how, str(number), Seed())
        feedback.hear([str(number)], [])
        assert np.isfinite(densify(decode(record))["w"]).all()
        assert all(np.isfinite(x).all() for x in feedback.residual.values())


@pytest.mark.parametrize("broken", ["residuals", "residuals/a-1", "residuals/a-1/r"])
def test_a_broken_folder_stops_nobody(app, tmp_path, monkeypatch, broken):
    monkeypatch.setenv(protocol.NODE_STATE_ENV, str(tmp_path))
    (tmp_path / broken).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / broken).write_text("a file in place of a folder")
    update, mark = ask(app, node(), "t1")
    assert np.count_nonzero(update) == SIZE // 2
    assert mark.ticket == ""


def test_a_folder_in_place_of_the_file_stops_nobody(app, tmp_path, monkeypatch):
    monkeypatch.setenv(protocol.NODE_STATE_ENV, str(tmp_path))
    (run_folder(tmp_path, "a-1", "r") / "residual.safetensors").mkdir(parents=True)
    _, mark = ask(app, node(), "t1")
    assert mark.ticket == ""


def test_runs_without_a_name_know_nothing_of_each_other(tmp_path, monkeypatch):
    monkeypatch.setenv(protocol.NODE_STATE_ENV, str(tmp_path))
    grid = grid_of(stepping(TARGETS, 0.1), 2, [CompressUpdates()])
    first, second = (run(grid, 3, compression="topk(0.01)")["w"] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    names = {p.parent.name for p in tmp_path.rglob("*.safetensors")}
    assert len(names) == 2
    assert all(name.startswith(protocol.UNNAMED) for name in names)


def test_old_and_too_many_residuals_go(tmp_path, monkeypatch):
    monkeypatch.setenv(protocol.NODE_STATE_ENV, str(tmp_path))
    for name in ("old", "older", "new"):
        Keeping("n", name, node()).save("residual", {"w": np.zeros(1000)})
        age = {"old": 3, "older": 20, "new": 0}[name] * 24 * 3600
        os.utime(run_folder(tmp_path, "n", name), (time.time() - age, time.time() - age))
    Keeping("n", "now", node()).save("residual", {"w": np.zeros(1000)})
    assert {p.name for p in (tmp_path / "residuals" / "n").iterdir()} == {"old", "new", "now"}
    Keeping("n", "now", node(), max_gb=2e-5).save("residual", {"w": np.zeros(1000)})
    assert {p.name for p in (tmp_path / "residuals" / "n").iterdir()} == {"new", "now"}


@pytest.mark.parametrize("name", ["../../etc", "/", ".", "..", "", "a/b", "x" * 400, "ü\n"])
def test_names_are_no_paths(tmp_path, name):
    folder = run_folder(tmp_path, "n", name)
    assert folder.parent == tmp_path / "residuals" / "n"
    folder.mkdir(parents=True)
    assert folder.resolve().parent == (tmp_path / "residuals" / "n").resolve()


def test_a_node_may_choose_its_own_codec():
    grid = grid_of(stepping(TARGETS, 0.5), 8, [CompressUpdates("float16")])
    assert distance(run(grid, 20)) < 1e-3
    with pytest.raises(ConfigError, match="codec 'x' is unknown"):
        CompressUpdates("x")
    with pytest.raises(ConfigError, match="max_gb must be a number > 0, got 0"):
        CompressUpdates(max_gb=0)


def test_the_mod_goes_around_clipping_and_noise():
    clip, noise = fixedclipping_mod, LocalDpMod(1.0, 1.0, 1e6, 1e-5)
    for mods in ([CompressUpdates(), clip], [CompressUpdates(), noise]):
        config = {"clipping_norm": 1.0} if mods[1] is clip else {}
        strategy = HybridStrategy(compression="topk(0.1) >> int8", seed=1, fraction_evaluate=0.0)
        grid = grid_of(stepping(TARGETS), 8, mods)
        result = strategy.start(grid, model(), num_rounds=1, train_config=ConfigRecord(config))
        # of what was clipped to norm 1 a mean of eight is sent, a tenth of each
        assert 0 < np.linalg.norm(to_weights(result.arrays)["w"]) <= 1
