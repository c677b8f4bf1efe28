"""Clients of a site, whose replies are known, and that misbehave on request."""

import itertools
import os
import signal
import time
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flower_hpc.client import AsSite, KeepBudget, budget_of
from flower_hpc.compression import CompressUpdates
from flower_hpc.protocol import NODE_NAME, NODE_STATE_ENV, NUM_PARTITIONS, PARTITION_ID
from flower_hpc.records import to_record, to_weights

CALLS = itertools.count(1)
"""Of this process."""


def placed(message, context, call_next):
    """Mod: as the SuperNode of this name, which has a folder of its own."""
    folder = Path(str(context.run_config["folder"]), str(context.node_config[NODE_NAME]))
    folder.mkdir(exist_ok=True)
    os.environ[NODE_STATE_ENV] = str(folder)
    return call_next(message, context)


app = ClientApp(mods=[CompressUpdates(), placed, AsSite(), KeepBudget()])


def examples(index):
    """Uneven."""
    return 1 + 7 * index % 5


def trained(index, x, rounds=0):
    """A noisy step of its own."""
    rng = np.random.default_rng([index, rounds])
    return (x + rng.normal(size=x.shape) * (1 + index)).astype(x.dtype)


@app.train()
def train(message: Message, context: Context) -> Message:
    """As the run config says."""
    config, index = context.run_config, int(context.node_config[PARTITION_ID])
    if config.get("raises") in (index, "all"):
        raise ValueError(f"client {index}, as asked")
    if config.get("dies") == index and "died" not in os.listdir(str(config["folder"])):
        open(os.path.join(str(config["folder"]), "died"), "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    budget = budget_of(message)
    while config.get("patient") and budget.left():
        time.sleep(0.01)
    seen = context.state.metric_records.setdefault("seen", MetricRecord({"messages": 0}))
    seen["messages"] += 1
    arrays = {k: trained(index, x) for k, x in to_weights(message.content["arrays"]).items()}
    if config.get("broken") == index:
        arrays["w"][:] = np.nan
    metrics = {
        "num-examples": examples(index),
        "num-steps": 1 + index,
        "train-loss-rms": float(index),
        "messages": seen["messages"],
        "calls": next(CALLS),
        "partitions": int(context.node_config[NUM_PARTITIONS]),
        "allowed": min(budget.seconds, 1e9),
    }
    content = RecordDict({"arrays": to_record(arrays), "metrics": MetricRecord(metrics)})
    if config.get("tells"):
        content["mine"] = ConfigRecord({"name": context.node_config[NODE_NAME]})
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """A loss that is known."""
    index = int(context.node_config[PARTITION_ID])
    metrics = MetricRecord({"num-examples": examples(index), "loss": float(index)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


@app.query("what")
def query(message: Message, context: Context) -> Message:
    """Whatever it is."""
    return Message(RecordDict(), reply_to=message)
