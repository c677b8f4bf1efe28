"""A run that a signal ends tells which, whoever raised what when it came."""

import os
import signal

import pytest
from flwr.app import MetricRecord

from conftest import grid_of, stepping, weights
from flower_hpc.strategies import HybridStrategy
from flower_hpc.telemetry import read_events
from flower_hpc.telemetry.interruption import leave_word


def ended(folder, end):
    strategy = HybridStrategy(run_dir=folder)

    def evaluate(number, arrays):
        if number == 1:
            end()
        return MetricRecord({"loss": 1.0})

    with pytest.raises((SystemExit, KeyboardInterrupt)):
        strategy.start(grid_of(stepping([1.0, 2.0]), 2), weights(), evaluate_fn=evaluate)
    last = list(read_events(folder / "events.jsonl"))[-1]
    assert last["event"] == "run_failed"
    return last["error"], last["exit_code"]


def exits(code):
    raise SystemExit(code)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_process_that_gets_a_signal_tells_its_name(tmp_path, number):
    handler = signal.signal(number, lambda *_: exits(0))  # as Flower's
    try:
        ours = signal.getsignal(number)
        assert ended(tmp_path, lambda: os.kill(os.getpid(), number)) == (
            f"interrupted by {number.name}",
            128 + number,
        )
        assert signal.getsignal(number) is ours
    finally:
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (SystemExit(143), ("interrupted by SIGTERM", 143)),
        (KeyboardInterrupt(), ("interrupted by SIGINT", 130)),
        (SystemExit(0), ("SystemExit", 1)),
    ],
)
def test_what_was_raised_tells_it_too(tmp_path, error, words):
    def end():
        raise error

    assert ended(tmp_path, end) == words


@pytest.mark.parametrize("error", [SystemExit(143), SystemExit(129), KeyboardInterrupt()])
def test_the_signal_that_the_command_got_is_the_one_that_counts(tmp_path, error):
    number = {143: 15, 129: 1}.get(getattr(error, "code", 0), 2)
    leave_word(tmp_path, error)
    assert ended(tmp_path, lambda: exits(0))[1] == 128 + number
