"""Rounds of a strategy, with the times at which they began and ended."""

import json
import os
import time
from pathlib import Path

import numpy as np
from flwr.app import Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from flower_hpc.records import to_record, to_weights
from flower_hpc.strategies import HybridStrategy, configured

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run, and leave one line a round in ``sleepy-<run id>.jsonl`` of the federation's state folder."""
    config = context.run_config
    strategy = configured(context) if config["strategy"] else FedAvg(fraction_evaluate=0.0)
    if isinstance(strategy, HybridStrategy):
        strategy = type(strategy)(**vars(strategy.settings) | {"fraction_evaluate": 0.0})
    lines = Path(os.environ["FLOWER_HPC_STATE"]) / f"sleepy-{context.run_id}.jsonl"
    began = time.time()

    def mark(number: int, arrays) -> MetricRecord:
        line = {"round": number, "time": time.time(), "seconds_so_far": time.time() - began}
        line["mean"] = float(np.mean(to_weights(arrays)["w"])) if len(arrays) else None
        with lines.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return MetricRecord({"accuracy": float(number)})

    size = int(config["kilobytes"]) * 250
    strategy.start(
        grid,
        initial_arrays=to_record({"w": np.zeros(size, np.float32)}),
        num_rounds=int(config["num-rounds"]),
        timeout=float(config["timeout"]),
        evaluate_fn=mark,
    )
