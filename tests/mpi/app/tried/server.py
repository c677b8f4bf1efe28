"""The server: a model of ones, trained by whichever strategy was asked for."""

import builtins
import json
import os
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp

from flower_hpc.protocol import STATE_ENV
from flower_hpc.records import to_record, to_weights
from flower_hpc.strategies import configured

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run it, and leave the model's first number in the state folder."""
    config = context.run_config
    if config["server-error"]:
        raise getattr(builtins, str(config["server-error"]))("as asked")
    start = to_record({"w": np.ones(int(config["size"]), np.float32)})
    strategy = configured(context)
    rounds = int(config["num-rounds"])
    options = {"num_rounds": rounds, "timeout": float(config["timeout"]), "train_config": ConfigRecord({})}
    result = strategy.start(grid, start, **options)
    weights = to_weights(result.arrays)["w"]
    metrics = dict(result.train_metrics_clientapp.get(rounds, {}))
    found = {"w": float(weights[0]), "same": bool((weights == weights[0]).all()), "metrics": metrics}
    Path(os.environ[STATE_ENV], "tried.json").write_text(json.dumps(found))
