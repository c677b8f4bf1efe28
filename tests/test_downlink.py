"""How models travel to the nodes: cast, or as changes, whose errors do not pile up."""

import numpy as np
import pytest

from compressed import MEAN, SIZE, TARGETS, distance, events, run
from conftest import grid_of, stepping, weights
from flower_hpc import protocol
from flower_hpc.compression import CompressUpdates
from flower_hpc.strategies import Deadline


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


@pytest.mark.parametrize("up", ["topk(0.1) >> int8", "randomk(0.2) >> int8(64, stochastic)"])
def test_a_resumed_run_is_that_of_one_that_was_never_stopped(tmp_path, up):
    """Residuals and delivery notes go on; the model that nodes were led to is part of the checkpoint."""
    how = {"up": up, "down": "topk(0.2)", "delta": True}
    options = {"compression": how, "run_name": "r"}
    whole = run(grid_of(stepping(TARGETS, 0.1), 4, [CompressUpdates()]), 8, run_dir=tmp_path / "a", **options)
    grid = grid_of(stepping(TARGETS, 0.1), 4, [CompressUpdates()])
    run(grid, 5, run_dir=tmp_path / "b", **options)
    again = run(grid, 8, run_dir=tmp_path / "b", resume=True, **options)
    np.testing.assert_array_equal(again["w"], whole["w"])
    resumed = [e for e in events(tmp_path / "b", "sent") if e["round"] == 6]
    assert {e["bytes_down"] for e in resumed} == {SIZE * 4 + 128}  # of what they hold nothing is known
