"""A client whose model is trained by several processes, as under torchrun.

The site's `mpi: {ranks: 4, together: true}` starts four of them. Each gets the message, and the variables
that torchrun would set: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT. What rank 0 replies is the
node's reply. Started without `mpi:` the same code trains in one process.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from ddp_example.model import build, examples
from flower_hpc.client import AsSite, KeepBudget, budget_of
from flower_hpc.compression import CompressUpdates

app = ClientApp(mods=[CompressUpdates(), AsSite(), KeepBudget()])


@contextmanager
def together() -> Iterator[torch.device]:
    """Be one of WORLD_SIZE processes that train one model, on the device that is this one's."""
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if "RANK" not in os.environ:  # a node without `mpi:`
        yield device
        return
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


@app.train()
def train(message: Message, context: Context) -> Message:
    """SGD, each rank on its share of every batch."""
    config, budget = context.run_config, budget_of(message)
    model = build()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    inputs, labels = examples(int(context.node_config["partition-id"]))
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    size, losses = int(config["batch-size"]), []
    with together() as device:
        # DDP averages the ranks' gradients while they are computed; what it wraps is the model itself
        trained = DistributedDataParallel(model.to(device)) if dist.is_initialized() else model.to(device)
        sgd = torch.optim.SGD(trained.parameters(), lr=float(config["learning-rate"]))
        for step in range(int(config["steps"])):
            if agreed(budget.spent(), device):
                break
            batch = torch.arange(step * size, (step + 1) * size) % len(labels)
            mine = batch[rank::ranks]
            loss = cross_entropy(trained(inputs[mine].to(device)), labels[mine].to(device))
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            losses.append(float(loss.detach()))
    arrays = ArrayRecord({name: x.cpu() for name, x in model.state_dict().items()})
    metrics = MetricRecord({"num-examples": len(labels), "train-loss": sum(losses) / max(1, len(losses))})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


def agreed(stop: bool, device: torch.device) -> bool:
    """Whether any rank wants to stop: they must all do the same number of steps."""
    if not dist.is_initialized():
        return stop
    wanted = torch.tensor(float(stop), device=device)
    dist.all_reduce(wanted, dist.ReduceOp.MAX)
    return bool(wanted)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """The loss on the node's examples; every rank computes it, rank 0 is heard."""
    model = build()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    inputs, labels = examples(int(context.node_config["partition-id"]))
    with torch.no_grad():
        loss = float(cross_entropy(model(inputs), labels))
    metrics = MetricRecord({"num-examples": len(labels), "loss": loss})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
