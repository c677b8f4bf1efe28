"""Tell when the command for this message was started."""

import os
import sys
import time
from pathlib import Path

import psutil
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer with that, in seconds since the epoch."""
    ago = time.clock_gettime(time.CLOCK_BOOTTIME) - started()
    told = {"began": time.time() - ago, "partition": int(context.node_config["partition-id"])}
    return Message(RecordDict({"told": MetricRecord(told)}), reply_to=message)


def started() -> float:
    """When the SuperExec started what has this message's token: this process, or the one it stands for."""
    token = sys.argv[sys.argv.index("--token") + 1]
    superexec = int(sys.argv[sys.argv.index("--parent-pid") + 1])
    [pid] = [child.pid for child in psutil.Process(superexec).children() if token in child.cmdline()]
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return int(ticks) / os.sysconf("SC_CLK_TCK")
