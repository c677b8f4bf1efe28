"""Shared by the tests of compressed updates: a convex problem whose optimum is the mean of the targets."""

import numpy as np

from flower_hpc.records import to_record, to_weights
from flower_hpc.strategies import HybridStrategy
from flower_hpc.telemetry import read_events

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
