"""Shared by the tests of offloading: an app whose replies depend on its state, and a queue."""

import os
from concurrent.futures import Executor, Future

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict

from conftest import weights
from flower_hpc import protocol
from flower_hpc.client import ProfiledApp
from flower_hpc.records import to_record, to_weights


def train(msg: Message, context: Context) -> Message:
    """Noisy steps, whose number and noise depend on how often this node was asked."""
    asked = context.state.config_records.setdefault("asked", ConfigRecord({"times": 0}))
    asked["times"] += 1
    received = to_weights(msg.content["arrays"])
    rng = np.random.default_rng([int(context.node_config[protocol.PARTITION_ID]), asked["times"]])
    arrays = {k: (x + rng.normal(size=x.shape)).astype(x.dtype) for k, x in received.items()}
    metrics = MetricRecord({"num-examples": asked["times"], "pid": os.getpid()})
    return Message(RecordDict({"arrays": to_record(arrays), "metrics": metrics}), reply_to=msg)


def app_of(fn, mods):
    app = ProfiledApp(mods=mods)
    app.train()(fn)
    return app


def message(config=None, kind="train", arrays=None):
    content = {"arrays": weights() if arrays is None else arrays, "config": ConfigRecord(config or {})}
    return Message(RecordDict(content), 1, kind)


def context():
    return Context(1, 1, {protocol.PARTITION_ID: 0}, RecordDict(), {})


class Slow(Executor):
    """A queue that moves when it is told to; what is submitted runs here."""

    def __init__(self, fails=(), starts=True):
        self.fails, self.starts, self.asked, self.futures = list(fails), starts, [], []

    def submit(self, fn, /, *args, minutes=None):
        self.asked.append(minutes)
        future = Future()
        future.job, future.reason = f"job {len(self.asked)}", "Priority"
        self.futures.append(future)
        if self.fails:
            future.set_exception(self.fails.pop(0))
        elif self.starts:
            future.set_result(fn(*args))
        return future
