"""What the sections share: a really trained update, the time of a call, the bytes of a reply on the wire."""

import time
from collections.abc import Callable
from functools import cache

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.app.message.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.task_identity import TaskIdentity

from flower_hpc.records import Weights, subtract
from flower_hpc.tasks import TaskOptions, Training, load

from .results import say

ID = 2**63 + 2**61  # a node's or run's id is drawn from 64 bits: nearly all take ten bytes
SESSION = "0" * 36  # a UUID
WARM_UP_STEPS, LOCAL_STEPS = 20, 16


@cache
def trained_update() -> Weights:
    """Of 16 steps of a node with two classes, after 20 steps on all ten."""
    say(f"training a ResNet-18 for {WARM_UP_STEPS} + {LOCAL_STEPS} steps ...")
    options = {"task": "cifar10", "model": "resnet18"}
    every = load(TaskOptions(**options))  # type: ignore[arg-type]
    model = every.build_model()
    every.train(model, every.load_partition(0, 20), Training(lr=0.02, steps=WARM_UP_STEPS))
    before = {name: x.copy() for name, x in every.weights(model).items()}
    two = load(TaskOptions(**options, partitioner="pathological"))  # type: ignore[arg-type]
    two.train(model, two.load_partition(0, 20), Training(lr=0.02, steps=LOCAL_STEPS, seed=1))
    return subtract({name: x.copy() for name, x in two.weights(model).items()}, before)


def best(call: Callable[[], object], times: int = 5) -> float:
    """Seconds of the fastest call: what others do on the machine only makes it slower."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return min(taken)


def reply_of(arrays: ArrayRecord) -> Message:
    """A reply as a node sends it."""
    # outside of a Flower process nobody has said who we are, and Message() asks
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    metrics = MetricRecord({"num-examples": 2500, "train-loss": 1.0})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), dst_node_id=ID, message_type="train")


def wire_bytes(message: Message) -> int:
    """All requests by which a SuperNode pushes a message, made as Flower's connection makes them."""
    node = Node(node_id=ID)
    with no_object_id_recompute():  # as Flower does before it pushes
        objects, tree = get_all_nested_objects(message), get_object_tree(message)
        first = PushMessagesRequest(
            node=node,
            messages_list=[message_to_proto(remove_content_from_message(message))],
            message_object_trees=[tree],
            clientapp_runtime_list=[1.0],
        )
        pushes = (
            PushObjectRequest(
                node=node, run_id=ID, object_id=name, object_content=x.deflate(), session_id=SESSION
            )
            for name, x in objects.items()
        )
        total: int = first.ByteSize() + sum(push.ByteSize() for push in pushes)
        return total
