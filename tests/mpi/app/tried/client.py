"""The nodes: each adds its partition's number plus one."""

import asyncio
import builtins
import itertools
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from threadpoolctl import threadpool_info

from flower_hpc.client import KeepBudget, budget_of
from flower_hpc.compression import CompressUpdates
from flower_hpc.protocol import NODE_STATE_ENV, SERVER_ROUND
from flower_hpc.records import to_record, to_weights

CALLS = itertools.count(1)
"""Of this process."""


class Odd(MetricRecord):
    """Does not arrive."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        """Fail now, or there."""
        return (int, ("no number",)) if self["travels"] else (lambda: None, ("",))


app = ClientApp(mods=[CompressUpdates(), KeepBudget()])


@app.train()
def train(message: Message, context: Context) -> Message:
    """As the run config says."""
    config, node = context.run_config, int(context.node_config["partition-id"])
    number = int(message.content["config"][SERVER_ROUND])
    if node == config["raises"]:
        raise getattr(builtins, str(config["raises-what"]), asyncio.CancelledError)(f"node {node}, as asked")
    if node == config["spoils-folder"]:
        folder = Path(os.environ[NODE_STATE_ENV])
        shutil.rmtree(folder)
        folder.write_text("")
    if node == config["dies"] and number == config["dies-in"]:
        die(str(config["dies-of"]))
    if 0 <= int(config["leaves-behind"]) <= node:
        leave_behind(str(config["leaves-what"]))
    budget = budget_of(message)
    until = time.monotonic() + (config["slow-s"] if node == config["slow"] else config["sleep-s"])
    while time.monotonic() < until and (config["deaf"] or budget.left()):
        time.sleep(0.01)
    weights = {name: x + node + 1 for name, x in to_weights(message.content["arrays"]).items()}
    context.state["seen"] = MetricRecord({"messages": messages_of(context) + 1})
    threads = max(library["num_threads"] for library in threadpool_info())
    told = {"messages": messages_of(context), "calls": next(CALLS), "threads": threads}
    metrics = MetricRecord({"num-examples": 1, **told})
    content = RecordDict({"arrays": to_record(weights), "metrics": metrics})
    if node in (config["unreadable"], config["unsendable"]):
        content["odd"] = Odd({"travels": int(node == config["unreadable"])})
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """How far the model has come."""
    weights = to_weights(message.content["arrays"])["w"]
    metrics = MetricRecord({"num-examples": 1, "w": float(weights.mean())})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def messages_of(context: Context) -> int:
    """How many this node has answered."""
    return int(context.state["seen"]["messages"]) if "seen" in context.state else 0


def leave_behind(what: str) -> None:
    """A thread, a child or a program that works on; the folder gets a file named after its process."""
    if what == "thread":
        threading.Thread(target=time.sleep, args=(300,)).start()
    elif what == "program":
        note(subprocess.Popen(["sleep", "300"]).pid)
    elif (child := os.fork()) == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(300)
        os._exit(0)
    else:
        note(child)


def note(pid: int) -> None:
    """Where the test finds it: in the run's folder."""
    (Path(os.environ[NODE_STATE_ENV]).parents[1] / f"left-{pid}").touch()


def die(how: str) -> None:
    """By a signal's name, or with an exit code."""
    if how.isdigit():
        os._exit(int(how))
    os.kill(os.getpid(), signal.Signals[how])
    time.sleep(60)
