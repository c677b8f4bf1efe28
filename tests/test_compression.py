"""Compressed updates: what nodes keep, what they take back, and what the loop makes of it."""

import json
import os
import time

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp.mod import LocalDpMod, fixedclipping_mod
from flwr.serverapp.strategy import FedAdam, FedAvg
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import grid_of, make_app, stepping, weights
from flower_hpc import protocol
from flower_hpc.compression import Compression, CompressUpdates, Int8, TopK
from flower_hpc.compression.feedback import Feedback
from flower_hpc.compression.keeping import Keeping, run_folder
from flower_hpc.compression.update import decode, encode_update
from flower_hpc.errors import ConfigError
from flower_hpc.records import Sparse, densify, to_record, to_weights
from flower_hpc.strategies import Deadline, Discard, FirstK, HybridStrategy
from flower_hpc.strategies.loop.acks import Acks
from flower_hpc.strategies.loop.mean import StreamingMean
from flower_hpc.telemetry import read_events
from flower_hpc.transport import InProcessGrid, InProcessNode

SIZE = 2000
TARGETS = [np.random.default_rng(i).normal(size=SIZE).astype(np.float32) for i in range(8)]
MEAN = np.mean(TARGETS, axis=0)


def model(size=SIZE):
    return to_record({"w": np.zeros(size, np.float32)})


def run(grid, rounds=3, arrays=None, **options):
    options = {"seed": 1, "fraction_evaluate": 0.0, **options}
    result = HybridStrategy(**options).start(grid, model() if arrays is None else arrays, num_rounds=rounds)
    return to_weights(result.arrays)


def events(folder, kind):
    return [e for e in read_events(folder / "events.jsonl") if e["event"] == kind]


def distance(w):
    return float(np.linalg.norm(w["w"] - MEAN) / np.linalg.norm(MEAN))


# --- what travels how


def test_small_arrays_statistics_and_integers_travel_exactly_unless_a_rule_says_otherwise():
    arrays = {
        "conv.weight": np.ones((40, 50), np.float32),
        "conv.bias": np.ones(40, np.float32),
        "bn.running_mean": np.ones(2000, np.float32),
        "bn.num_batches_tracked": np.array(7),
        "table": np.arange(3000),
        "head.weight": np.ones((40, 50), np.float32),
        "mask": np.ones(5000, bool),
        "wave": np.ones(5000, np.complex64),
    }
    how = Compression(up=Int8(), rules={"head.*": "topk(0.5)", "conv.bias": "float16"})
    stypes = {name: array.stype for name, array in encode_update(arrays, how).items()}
    assert stypes.pop("conv.weight") == "flower_hpc:int8(1024,nearest)"
    assert stypes.pop("head.weight") == "flower_hpc:topk(0.5,model)"
    assert stypes.pop("conv.bias") == "flower_hpc:float16"
    assert set(stypes.values()) == {"numpy.ndarray"}
    back = densify(decode(encode_update(arrays, how)))
    assert {k: (x.dtype, x.shape) for k, x in back.items()} == {
        k: (x.dtype, x.shape) for k, x in arrays.items()
    }


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("nothing", "codec 'nothing' is unknown"),
        (3, "compression must be a codec or a mapping, got 3"),
        ({"upp": "int8"}, "compression has no parameter 'upp', known are up, down"),
        ({"up": 3}, "up must be a codec, got 3"),
        ({"down": "topk(0.1)"}, "down must keep the whole model unless delta is true"),
        ({"delta": True}, "delta needs a codec in down"),
        ({"decay": 1.5}, r"decay must be in \[0, 1\], got 1.5"),
        ({"momentum": 1}, r"momentum must be in \[0, 1\), got 1"),
        ({"small": -1}, "small must be a whole number >= 0, got -1"),
        ({"accept": ["gzip"]}, "accept must be of identity, raw"),
        ({"up": "topk >> int8", "accept": ["int8"]}, "missing topk"),
        ({"rules": "x"}, "rules must map patterns to codecs, got 'x'"),
        ({"feedback": 1}, "feedback must be true or false, got 1"),
    ],
)
def test_bad_settings_are_one_clear_line(value, words):
    with pytest.raises(ConfigError, match=words) as error:
        HybridStrategy(compression=value)
    assert "\n" not in str(error.value)


def test_a_node_hears_all_that_it_needs():
    how = Compression(up="topk(0.1) >> int8", rules={"a.*": "int4"}, small=5, decay=0.5, momentum=0.3)
    heard = Compression.answer(how.ask())
    assert heard == Compression(up=how.up, rules=how.rules, small=5, decay=0.5, momentum=0.3)
    for text in ("{", "[]", '{"up": "int8"}', '{"up": 3}'):
        with pytest.raises(ConfigError, match="cannot be read"):
            Compression.answer(text)


# --- error feedback


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
        record = feedback.send(update, how, str(number), str(number))
        heard = [str(number)] if arrived else []
        received += densify(decode(record))["w"] if arrived else 0
    feedback.hear(heard, [])
    assert not feedback.pending
    kept = feedback.residual.get("w", np.zeros(500))
    np.testing.assert_allclose(received + kept, total, atol=1e-4)


def test_what_waits_is_neither_forgotten_nor_taken_back():
    feedback, how = Feedback(), Compression(up=TopK(0.5), small=0)
    feedback.send({"w": np.float32([1, 4])}, how, "a", "")
    feedback.hear([], ["a"])
    assert list(feedback.pending) == ["a"]
    np.testing.assert_array_equal(feedback.residual["w"], [1, 0])
    feedback.hear([], [])
    np.testing.assert_array_equal(feedback.residual["w"], [1, 4])


def test_decay_fades_what_is_kept():
    feedback, how = Feedback(), Compression(up=TopK(0.5), small=0, decay=0.5)
    feedback.send({"w": np.float32([1, 4])}, how, "a", "")
    record = feedback.send({"w": np.float32([0, 0])}, how, "b", "")
    np.testing.assert_array_equal(densify(decode(record))["w"], [0.5, 0])


def test_momentum_gathers_what_was_not_sent_and_is_masked_where_it_was():
    feedback, how = Feedback(), Compression(up=TopK(0.5), small=0, momentum=0.5)
    feedback.send({"w": np.float32([1, 4])}, how, "a", "")  # u = (1, 4), e = (1, 0)
    record = feedback.send({"w": np.float32([1, 2])}, how, "b", "")  # u = (1.5, 2), p = (2.5, 2)
    np.testing.assert_array_equal(densify(decode(record))["w"], [2.5, 0])
    np.testing.assert_array_equal(feedback.velocity["w"], [0, 2])
    np.testing.assert_array_equal(feedback.residual["w"], [0, 2])


def test_residuals_of_another_model_are_dropped():
    feedback, how = Feedback(), Compression(up=TopK(0.5), small=0)
    feedback.send({"w": np.float32([1, 4])}, how, "a", "")
    record = feedback.send({"w": np.float32([1, 2, 3, 4])}, how, "b", "")
    np.testing.assert_array_equal(densify(decode(record))["w"], [0, 0, 3, 4])


def test_lossless_and_unbiased_codecs_keep_nothing():
    for codec, keeps in (("zstd", 0), ("int8(64, stochastic)", 0), ("randomk(0.1, 0, true)", 0), ("int8", 1)):
        assert Compression(up=codec).remembers == bool(keeps)
    assert not Compression(up="int8", feedback=False).remembers


# --- the node's state


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


# --- the server


def test_a_compression_that_loses_nothing_changes_nothing(tmp_path):
    plain = run(grid_of(stepping(TARGETS, 0.3), 8))
    both = {"up": "topk(1.0)", "down": "topk(1.0)", "delta": True}
    for codec in ("zstd", "topk(1.0)", "shuffle >> zstd", both):
        packed = run(grid_of(stepping(TARGETS, 0.3), 8, [CompressUpdates()]), compression=codec)
        np.testing.assert_allclose(packed["w"], plain["w"], rtol=1e-5, atol=1e-6)


def test_nodes_without_the_mod_take_part():
    asked, plain = (run(grid_of(stepping(TARGETS, 0.3), 8), **o) for o in ({"compression": "int8"}, {}))
    np.testing.assert_array_equal(asked["w"], plain["w"])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ds"), st.floats(0, 1e6)), min_size=1, max_size=6), st.integers(0, 99)
)
def test_the_mean_of_sparse_and_dense_updates_is_that_of_dense_ones(kinds, seed):
    rng, one, other, total = np.random.default_rng(seed), StreamingMean(), StreamingMean(), 0.0
    for kind, weight in kinds:
        where = np.flatnonzero(rng.random(300) < 0.2)
        x = Sparse(where, rng.normal(size=len(where)).astype(np.float32), (30, 10))
        one.add({"w": x if kind == "s" else x.dense()}, weight, is_update=True)
        other.add({"w": x.dense()}, weight, is_update=True)
        total += weight
    if total > 0:
        base = {"w": rng.normal(size=(30, 10)).astype(np.float32)}
        np.testing.assert_allclose(one.result(base)["w"], other.result(base)["w"], rtol=1e-5, atol=1e-6)


def test_huge_and_lopsided_sparse_updates_do_not_overflow():
    for weights_of in ([1e-300, 1.0, 1e300], [1.0] * 2000, [1e300, 1.0, 1e-300]):
        mean = StreamingMean()
        for weight in weights_of:
            mean.add({"w": Sparse(np.array([1]), np.array([1e300]), (3,))}, weight, is_update=True)
        np.testing.assert_allclose(mean.result({"w": np.zeros(3)})["w"], [0, 1e300, 0])


def test_a_partial_array_counts_where_it_is():
    mean = StreamingMean()
    mean.add({"w": np.float32([1, 1, 1, 1])}, 1.0, is_update=True)
    mean.add({"w": Sparse(np.array([0, 1]), np.float32([4, 4]), (4,), partial=True)}, 2.0, is_update=True)
    mean.add({"w": Sparse(np.array([1, 2]), np.float32([2, 3]), (4,), partial=True)}, 1.0, is_update=True)
    np.testing.assert_allclose(mean.result({"w": np.zeros(4)})["w"], [3, 11 / 4, 2, 1])


def test_a_reply_in_a_codec_that_is_not_accepted_is_refused(tmp_path):
    grid = grid_of(stepping(TARGETS, 0.3), 2, [CompressUpdates("topk(0.1)")])
    how = {"up": "int8", "accept": ["int8"]}
    with pytest.raises(Exception, match="codec topk is not allowed, allowed are int8"):
        run(grid, compression=how, run_dir=tmp_path)
    assert events(tmp_path, "reply_refused")[0]["reason"] == "codec topk is not allowed, allowed are int8"


def test_inner_strategies_get_full_weights():
    for make in (lambda: FedAdam(eta=0.3), FedAvg):
        codec = {"up": "topk(1.0)", "down": "float16"}
        packed = run(grid_of(stepping(TARGETS, 0.3), 8, [CompressUpdates()]), compression=codec, inner=make())
        plain = run(grid_of(stepping(TARGETS, 0.3), 8), inner=make())
        np.testing.assert_allclose(packed["w"], plain["w"], atol=0.02)


def test_bytes_are_told_before_and_after(tmp_path):
    grid = grid_of(stepping(TARGETS, 0.02), 8, [CompressUpdates()])
    run(grid, compression={"up": "topk(0.05) >> int8", "down": "int8"}, run_dir=tmp_path)
    result = json.loads((tmp_path / "result.json").read_text())
    for row in result["rounds"]:
        assert row["bytes_up_full"] == row["bytes_down_full"] == 8 * (SIZE * 4 + 128)
        assert row["bytes_up"] < row["bytes_up_full"] / 20
    less = [row["bytes_down_full"] / row["bytes_down"] for row in result["rounds"]]
    assert less[0] == 1
    assert min(less[1:]) > 3.5
    assert result["bytes_up"] == sum(row["bytes_up"] for row in result["rounds"])


# --- delivery notes


def test_tickets_go_from_sent_to_received():
    acks = Acks()
    first = acks.asks("n")[protocol.TICKET]
    assert acks.came("n", first)
    acks.wait([("n", first)])
    second = acks.asks("n")
    assert (second[protocol.RECEIVED], second[protocol.WAITING]) == ([], [first])
    acks.receive([("n", first)])
    third = acks.asks("n")
    assert (third[protocol.RECEIVED], third[protocol.WAITING]) == ([first], [])
    assert not acks.came("n", second[protocol.TICKET])  # void: the node has taken it back
    assert acks.asks("n")[protocol.RECEIVED] == [first]  # nobody knows whether it has heard
    fifth = acks.asks("n")
    assert acks.came("n", fifth[protocol.TICKET])
    assert acks.asks("n")[protocol.RECEIVED] == []
    assert not acks.came("other", "made up")


def test_a_late_update_that_its_node_took_back_is_dropped(tmp_path):
    """A node that comes back under its key is asked anew; what it sent before counts as lost."""
    nodes = [InProcessNode("n0", delay_s=1), InProcessNode("n1", delay_s=1)]
    grid = grid_of(stepping(TARGETS, 0.02), nodes, [CompressUpdates()])
    acks = Acks()
    old = acks.asks("n1")[protocol.TICKET]
    acks.asks("n1")
    assert not acks.came("n1", old)
    w = run(grid, 5, compression="topk(0.2)", run_dir=tmp_path)
    assert np.isfinite(w["w"]).all()
    assert not any(e.get("given_back") for e in events(tmp_path, "reply_late"))


def cut_runs(feedback, acked=True, rounds=300):
    """A deadline cuts 30 % of the replies, all of three nodes; the fixed point is the mean of the targets."""
    rng = np.random.default_rng(7)
    slow = {(i, r): i < 3 and rng.random() < 0.8 for i in range(8) for r in range(rounds + 9)}

    class Deaf(CompressUpdates):
        """Hears that all arrived."""

        def _compress(self, update, config, keeping):
            pending = (keeping.load("residual") or {}).get("pending", {})
            return super()._compress(update, config | {protocol.RECEIVED: list(pending)}, keeping)

    def delay(partition, message):
        return 11.0 if slow[partition, message.content["config"]["server-round"]] else 1.0

    nodes = [InProcessNode(f"n{i}", delay_s=lambda m, i=i: delay(i, m)) for i in range(8)]
    grid = grid_of(stepping(TARGETS, 0.02), nodes, [CompressUpdates() if acked else Deaf()])
    how = {"up": "topk(0.1)", "feedback": feedback}
    return distance(
        run(grid, rounds, compression=how, cutoff=Deadline(10), staleness=Discard(), lost_after_s=5000.0)
    )


def test_with_cuts_feedback_with_notes_beats_feedback_without_beats_none():
    noted, deaf, none = cut_runs(True), cut_runs(True, acked=False), cut_runs(False)
    assert noted < 0.7 * deaf
    assert deaf < none


def test_first_k_with_late_updates_converges_compressed():
    grid = grid_of(stepping(TARGETS, 0.02), [1.0, 1.1, 1.2, 1.3, 1.4, 3.0, 5.0, 9.0], [CompressUpdates()])
    packed = distance(run(grid, 400, compression="topk(0.1) >> int8", cutoff=FirstK(0.6)))
    grid = grid_of(stepping(TARGETS, 0.02), [1.0, 1.1, 1.2, 1.3, 1.4, 3.0, 5.0, 9.0])
    plain = distance(run(grid, 400, cutoff=FirstK(0.6)))  # off the mean: late updates count less
    assert packed < plain + 0.1


# --- the way down


def test_a_cast_model_is_sent_to_those_who_read_it(tmp_path):
    grid = grid_of(stepping(TARGETS, 0.5), 8, [CompressUpdates()])
    assert distance(run(grid, 20, compression={"down": "float16"}, run_dir=tmp_path)) < 1e-3
    sent = [e["bytes_down"] for e in events(tmp_path, "sent")]
    assert sent[:8] == [SIZE * 4 + 128] * 8  # nothing is known of them yet
    assert set(sent[8:]) == {SIZE * 2}
    plain = grid_of(stepping(TARGETS, 0.5), 8)
    assert distance(run(plain, 20, compression={"down": "float16"})) < 1e-5


def test_errors_of_changes_do_not_pile_up(tmp_path):
    how = {"down": "topk(0.1) >> int8", "delta": True, "small": 0}
    grid = grid_of(stepping(TARGETS, 0.02), 8, [CompressUpdates()])
    assert distance(run(grid, 400, compression=how, run_dir=tmp_path)) < 0.06
    exact = distance(run(grid_of(stepping(TARGETS, 0.02), 8), 400))
    assert exact > 0.0002
    sent = [e["bytes_down"] for e in events(tmp_path, "sent")]
    assert sent[:8] == [SIZE * 4 + 128] * 8
    assert max(sent[8:]) < sent[0] / 20


def test_a_node_that_was_away_gets_the_changes_it_missed_and_a_new_one_the_model(tmp_path, monkeypatch):
    how = {"down": "topk(0.1) >> int8", "delta": True}
    grid = grid_of(stepping(TARGETS, 0.02), [1.0, 1.0, 1.0, 7.0], [CompressUpdates()])
    w = run(grid, 12, compression=how, cutoff=Deadline(2), run_dir=tmp_path)
    assert np.isfinite(w["w"]).all()
    to_slow = [e["bytes_down"] for e in events(tmp_path, "sent") if e["node"] == "n3"]
    to_fast = [e["bytes_down"] for e in events(tmp_path, "sent") if e["node"] == "n0"]
    assert len(to_slow) >= 2
    assert max(to_fast[1:]) < to_slow[1] < to_slow[0] / 4  # several changes, but not the model
    assert not events(tmp_path, "reply_failed")


def test_a_node_that_lost_its_model_is_sent_the_whole_one(tmp_path, monkeypatch):
    state = tmp_path / "state"
    monkeypatch.setenv(protocol.NODE_STATE_ENV, str(state))
    how = {"down": "topk(0.1) >> int8", "delta": True}

    def reply_of(partition, received):
        kept = sorted(state.rglob("model.safetensors"))
        if partition == 0 and len(kept) == 3 and not (state / "done").exists():
            (state / "done").touch()
            kept[0].unlink()
        return stepping(TARGETS, 0.02)(partition, received)

    grid = grid_of(reply_of, 3, [CompressUpdates()])
    run(grid, 6, compression=how, run_dir=tmp_path / "run", run_name="r")
    (failed,) = events(tmp_path / "run", "reply_failed")
    assert "holds none" in failed["reason"]
    sent = [e for e in events(tmp_path / "run", "sent") if e["node"] == failed["node"]]
    after = [e["bytes_down"] for e in sent if e["round"] > failed["round"]]
    assert after[0] == SIZE * 4 + 128
    assert max(after[1:]) < after[0] / 10


def test_late_updates_of_changed_models_count_from_what_their_nodes_had():
    """With steps of one every node answers with its own target, whatever it started from."""
    how = {"down": "topk(0.3)", "delta": True}
    for mods in ([CompressUpdates()], []):
        grid = grid_of(stepping(TARGETS, 0.05), [1.0, 1.0, 1.0, 2.5], mods)
        w = run(grid, 200, compression=how, cutoff=Deadline(2))
        assert np.linalg.norm(w["w"] - np.mean(TARGETS[:4], axis=0)) < 0.6 * np.linalg.norm(MEAN)


def test_small_models_travel_as_they_are():
    grid = grid_of(stepping([1.0, 2.0, 3.0]), 3, [CompressUpdates()])
    w = run(grid, 2, arrays=weights(), compression={"up": "topk(0.1) >> int8", "down": "int8"})
    np.testing.assert_allclose(w["w"], 2.0)
