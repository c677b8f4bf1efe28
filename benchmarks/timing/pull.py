"""Case ``pull``: how long a message waits until its SuperNode has asked for it and starts a process."""

import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flower_hpc.federation import Federation
from flower_hpc.federation.runs import App, new_name, state_of, submit

from .programs import BENCHMARKS, Failed
from .saying import Bar, say, show_bars, table

NOTES = "pulling.json"
FILE = """
name: bench-pull
security: {network: private}
sites:
  direct: {nodes: 1}
  gateway: {nodes: 1, network: host}
"""
WAYS = {
    "direct": "the node asks the SuperLink itself",
    "held": "the gateway holds its request; nobody rings",
    "bell": "the gateway holds its request; the sender rings",
}
SHORTER = 2.0
RUN_S, ASK_S = 900.0, 30.0


def measure_pull(messages: int) -> dict[str, Any]:
    """Seconds from the sending to the SuperExec's start of a process, for each way: median and all.

    A node gets one message at a time, alone, after a pause of 1 to 4 s; the first of each is not counted. Up
    to 0.2 s of each are the SuperExec's own poll.
    """
    with tempfile.TemporaryDirectory(prefix="flower-hpc-pull-") as folder:
        path = Path(folder, "federation.yaml")
        path.write_text(FILE)
        federation = Federation.load(path)
        try:
            federation.up(timeout_s=180)
            say(f"  {messages} messages of each kind")
            lines = noted(federation, messages + 1)
        finally:
            federation.down()
    lines = [line for line in lines if line["number"]]
    seconds = {way: [line["pull_s"] for line in lines if line["way"] == way] for way in WAYS}
    return {way: summary(values) for way, values in seconds.items()} | {"bars": [bar(seconds).row()]}


def noted(federation: Federation, messages: int) -> list[dict[str, Any]]:
    """What the app noted of each message."""
    state, connection = federation.state_dir, federation.connection
    app, config = App.read(BENCHMARKS / "pulling"), {"messages": messages}
    name, nodes = new_name("pulling"), federation.num_nodes
    run_id = submit(state, connection, app, config, name=name, strategy=None, nodes=nodes).run_id
    path, until, ask = state / NOTES, time.monotonic() + RUN_S, time.monotonic() + ASK_S
    while not path.exists():
        if time.monotonic() > until:
            raise Failed(f"the run did not end within {RUN_S:g} s")
        if time.monotonic() > ask:
            ask = time.monotonic() + ASK_S
            status, details = state_of(state, connection, run_id)
            if status.startswith("finished") and not path.exists():
                raise Failed(f"the run ended early: {status} {details}")
        time.sleep(0.5)
    found: list[dict[str, Any]] = json.loads(path.read_text())
    return found


def summary(values: Sequence[float]) -> dict[str, Any]:
    """The median, and all."""
    return {"median": round(statistics.median(values), 3), "all": [round(value, 3) for value in values]}


def bar(seconds: dict[str, list[float]]) -> Bar:
    """A bell is what the gateway's waiting is for."""
    direct, bell = (statistics.median(seconds[way]) for way in ("direct", "bell"))
    return Bar("sending -> command: direct / bell", direct / bell, at_least=SHORTER)


def show_pull(found: dict[str, Any]) -> None:
    """Print the medians."""
    print("\nFrom the sending of a message to the start of the process that answers it, s")
    rows = [["", "messages", "median", "longest"]]
    for way, words in WAYS.items():
        values = found[way]["all"]
        rows.append([words, str(len(values)), f"{found[way]['median']:.2f}", f"{max(values):.2f}"])
    table(rows)
    show_bars(found["bars"])
