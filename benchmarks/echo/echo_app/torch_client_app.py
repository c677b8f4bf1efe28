"""The same, of an app that imports torch, as most do; notes how long it took to get here."""

import json
import os
import sys
import time
from pathlib import Path

import psutil
import torch
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

SHIM = "shim.py"  # of flower_hpc.launchers.warm: what the SuperExec starts where forks answer

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """A training step is next: its time is noted, in the node's own file."""
    now, up = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)
    metrics = MetricRecord({"num-examples": 1, "threads": torch.get_num_threads()})
    content = RecordDict({"arrays": message.content["arrays"], "metrics": metrics})
    if notes := str(context.run_config["notes"]):
        line = {"from_send_s": now - message.metadata.created_at, "from_command_s": up - started()}
        with Path(notes, f"steps-{context.node_id}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
    return Message(content, reply_to=message)


def started() -> float:
    """When the command began that was started for this message, in seconds since the machine's boot."""
    # not psutil's create_time: its epoch is a whole second, which is more than a warm client takes
    ticks = Path(f"/proc/{command()}/stat").read_text().rsplit(")", 1)[1].split()[19]
    return int(ticks) / os.sysconf("SC_CLK_TCK")


def command() -> int:
    """The process that the SuperExec started: this one, or the shim that had the same arguments."""
    mine = sys.argv[1:]
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if any(word.endswith(SHIM) for word in words[:5]) and mine and words[-len(mine) :] == mine:
            return int(process.pid)
    return os.getpid()
