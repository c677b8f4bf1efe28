"""Send messages, one at a time, and note how each one fared in ``pulling.json`` of the state folder."""

import json
import os
import random
import time
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from flower_hpc.strategies.loop.bell import ring

app = ServerApp()
DIRECT = 0  # the partition of the node that asks the SuperLink itself


@app.main()
def main(grid: Grid, context: Context) -> None:
    """As many messages to each node as the run config says; to the one behind the gateway, twice."""
    while len(nodes := sorted(grid.get_node_ids())) < 2:
        time.sleep(1)
    lines = []
    for number in range(int(context.run_config["messages"])):
        for node in nodes:
            partition, pull_s = one(grid, node, bell=False)
            way = "direct" if partition == DIRECT else "held"
            lines.append({"number": number, "way": way, "pull_s": pull_s})
            if way == "held":
                lines.append({"number": number, "way": "bell", "pull_s": one(grid, node, bell=True)[1]})
    path = Path(os.environ["FLOWER_HPC_STATE"], "pulling.json")
    path.with_suffix(".part").write_text(json.dumps(lines))
    path.with_suffix(".part").rename(path)


def one(grid: Grid, node: int, *, bell: bool) -> tuple[int, float]:
    """One message and its reply: who answered, and the seconds until a process was started for it."""
    time.sleep(random.uniform(1, 4))  # so that the node's own poll is anywhere
    content = RecordDict({"config": ConfigRecord({"any": 1})})
    sent = time.time()
    ids = list(grid.push_messages([Message(content, message_type="train", dst_node_id=node)]))
    if bell:
        ring([node])
    while not (replies := list(grid.pull_messages(ids))):
        time.sleep(0.2)
    told = replies[0].content["told"]
    return int(told["partition"]), told["began"] - sent
