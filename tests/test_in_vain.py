"""A run whose rounds all came to nothing fails, and says why; one that was not to train does not."""

import pytest
from flwr.app import MetricRecord

from conftest import grid_of, stepping, weights
from flower_hpc.errors import RunError
from flower_hpc.strategies import parse
from flower_hpc.telemetry import read_events


def start(spec, folder, grid, num_rounds=2):
    strategy = parse(spec)
    strategy.record_as("r", folder)
    return strategy.start(
        grid, weights(), num_rounds=num_rounds, evaluate_fn=lambda number, arrays: MetricRecord({"loss": 1.0})
    )


def raising(partition, received):
    raise ValueError("as asked")


def refused_in(*rounds, of):
    """Nodes whose replies are of another shape in these messages."""
    calls = dict.fromkeys(range(of), 0)

    def reply_of(partition, received):
        calls[partition] += 1
        w = received["w"][:1] if calls[partition] in rounds else received["w"] + 1
        return {"w": w}, {"num-examples": 1}

    return reply_of


def test_a_run_whose_replies_are_all_refused_fails_and_says_why(tmp_path):
    with pytest.raises(RunError) as caught:
        start("scaffold()", tmp_path, grid_of(stepping([1.0, 2.0]), 2))
    words = str(caught.value)
    assert (
        "no round aggregated anything, the model is untrained: 4 replies were refused, the first of" in words
    )
    assert "control" in words
    assert caught.value.exit_code == 1
    last = list(read_events(tmp_path / "events.jsonl"))[-1]
    assert (last["event"], last["error"], last["exit_code"]) == ("run_failed", words, 1)


def test_errors_of_nodes_are_counted_too(tmp_path):
    with pytest.raises(RunError, match=r"4 replies were errors, the first of .*as asked"):
        start("hybrid()", tmp_path, grid_of(raising, 2))


def test_rounds_without_nodes_are_no_training_either(tmp_path):
    with pytest.raises(RunError, match=r"untrained: 2 nodes online, .* needs 3 online"):
        start("hybrid(min_nodes=3, node_wait_s=1)", tmp_path, grid_of(stepping([1.0, 2.0]), 2), 1)


@pytest.mark.parametrize("rounds", [[1], [2]])
def test_one_round_that_aggregated_is_enough(tmp_path, rounds):
    result = start("hybrid()", tmp_path, grid_of(refused_in(*rounds, of=2), 2))
    assert result.arrays["w"].numpy()[0] == 1


@pytest.mark.parametrize(
    ("spec", "num_rounds"), [("hybrid()", 0), ("hybrid(inner=flower.FedAvg(fraction_train=0.0))", 2)]
)
def test_a_run_that_was_not_to_train_is_none_in_vain(tmp_path, spec, num_rounds):
    start(spec, tmp_path, grid_of(stepping([1.0, 2.0]), 2), num_rounds)
    assert list(read_events(tmp_path / "events.jsonl"))[-1]["event"] == "run_finished"
