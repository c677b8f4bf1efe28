"""Sleep as long as the node is told to, add 1 to every weight, note the time, answer."""

import os
import time
from pathlib import Path

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flower_hpc.compression import CompressUpdates
from flower_hpc.records import to_record, to_weights

app = ClientApp(mods=[CompressUpdates()])


@app.train()
def train(message: Message, context: Context) -> Message:
    """Work that takes a known time and nothing else."""
    time.sleep(float(context.node_config.get("work-s", context.run_config["work-s"])))
    arrays = {k: x + 1 for k, x in to_weights(message.content["arrays"]).items()}
    content = RecordDict({"arrays": to_record(arrays), "metrics": MetricRecord({"num-examples": 1})})
    with (Path(os.environ["FLOWER_HPC_STATE"]) / "sleepy-done").open("a") as file:
        file.write(f"{time.time()}\n")
    return Message(content, reply_to=message)
