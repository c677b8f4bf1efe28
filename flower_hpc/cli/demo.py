"""``flower-hpc demo``: a federation that does not wait for its slowest node, in two minutes on two cores."""

from typing import Annotated

import typer

from .. import apps
from ..federation import Federation
from ..federation.runs import App, Scalar, new_name
from .common import ERR, bring_up, warn
from .options import Json
from .run import check, execute, report

NODES, SLOWDOWN = 4, 50
STRATEGY = "hybrid(cutoff=first_k(0.75) | deadline(60), inner=flower.FedAvgM(server_momentum=0.5))"


def demo(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds to train.")] = 8,
    json: Json = False,
) -> None:
    """Take a tour: a SuperLink and 4 SuperNodes here, real digits, one node 50 times slower.

    Needs no network, no data and no scheduler. Each node holds 2-3 of the 10 digits; a round ends with the
    first 3 of 4 replies, and the slow node's update is folded in when it comes. Everything is taken down.
    """
    app = App.read(apps.path("benchmark"))
    overrides: dict[str, Scalar] = {
        "task": "digits",
        "partitioner": "pathological",
        "classes-per-node": 3,
        "num-rounds": rounds,
        "local-epochs": 5,
        "batch-size": 8,
        # small steps: the end depends less on the rounds into which the slow node's updates fall
        "learning-rate": 0.02,
        "strategy": STRATEGY,
    }
    federation = Federation.ephemeral(
        nodes=NODES, name="demo", node_configs={NODES - 1: {"slowdown": SLOWDOWN}}
    )
    check(app, app.configured(overrides), NODES)
    warn(federation)
    ERR.print(
        f"A SuperLink and {NODES} SuperNodes on this machine, TLS and node authentication on.\n"
        f"Real handwritten digits, 3 of the 10 classes a node; the last node is {SLOWDOWN} times slower.\n"
        f"Strategy: {STRATEGY}.\n"
        "A round ends with the first 3 replies; the slow node's update is folded in when it comes.",
        highlight=False,
        soft_wrap=True,
    )
    try:
        bring_up(federation, 120)
        result = execute(federation, app, overrides, new_name("demo"))
    finally:
        with ERR.status("taking everything down"):
            federation.down()
    report(result, json)
    if not json:
        ERR.print(f"test accuracy {result['accuracy']:.3f}", highlight=False)
