"""Rounds of a strategy: when each ended, and the most memory that this process had."""

import json
import os
import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, Strategy

from flower_hpc.records import to_record
from flower_hpc.strategies import configured

NOTES = "server.json"

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run, and leave the notes in the folder that the run config names."""
    config, times = context.run_config, []

    # strategies of all kinds call it before the first round and after each: one watch for every column
    def mark(number: int, arrays: ArrayRecord) -> None:
        times.append(time.time())

    floats = np.random.default_rng(0).random(int(config["floats"]), np.float32)
    result = chosen(context).start(
        grid,
        initial_arrays=to_record({"w": floats}),
        num_rounds=int(config["num-rounds"]),
        evaluate_fn=mark,
    )
    # a mean of equal arrays: a round in which nobody answered would be quick, and wrong
    same = np.allclose(next(iter(result.arrays.values())).numpy(), floats)
    found = {"times": times, "peak_mb": peak_mb(), "pid": os.getpid(), "same": bool(same)}
    part = Path(config["notes"], f"{NOTES}.part")
    part.write_text(json.dumps(found))
    part.rename(part.with_name(NOTES))


def chosen(context: Context) -> Strategy:
    """The run config's strategy; without one Flower's own, which waits for all nodes."""
    if context.run_config["strategy"]:
        return configured(context)
    nodes = int(context.run_config["nodes"])
    return FedAvg(fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes)


def peak_mb() -> float:
    """The most resident memory of this process so far."""
    # not getrusage: its peak is inherited from the process that started this one
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
