"""Time to accuracy of the strategies on 60 nodes of very different speed, in virtual time with real training.

Handwritten digits, shared out unevenly (Dirichlet) among 60 nodes whose seconds a step are lognormal with
sigma 1. The clock is virtual, the training is real, the seed is the same. The first row waits for a random
third of the nodes; its final accuracy less one point is the target. Every strategy trains until the nodes
were asked as often, and on until it is at the target, for at most four times as many messages.

    OMP_NUM_THREADS=1 uv run python benchmarks/strategies.py [--json] [--dropout] [--seed 0] [--only NAME ...]

One thread: more of them only wait for each other on matrices this small.
"""

import argparse
import json
import logging
import math
import random
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import takewhile

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from rich.console import Console
from rich.progress import track

from flower_hpc.client import budget_of, effective_steps
from flower_hpc.compression import CompressUpdates
from flower_hpc.protocol import (
    DEADLINE_S,
    EFFECTIVE_STEPS,
    NUM_STEPS,
    PARTITION_ID,
    PROFILE_QUERY,
    PROXIMAL_MU,
    SERVER_ROUND,
    TRAIN_S,
    config_of,
)
from flower_hpc.records import to_record, to_weights
from flower_hpc.strategies import parse
from flower_hpc.tasks import TaskOptions, Training, load, seed_of
from flower_hpc.transport import InProcessGrid, InProcessNode

OVERHEAD_S, MEDIAN_STEP_S = 5.0, 1.0  # a Flower message costs seconds even where nothing is to be done
BASELINE = "random + wait for all"
FIRST = "selection=random_selection(1/3)"
SPECS = {
    BASELINE: f"hybrid({FIRST})",
    "ResourceAware": "hybrid(selection=resource_aware(1/3))",
    "Oort": "hybrid(selection=oort(1/3))",
    "Deadline + FitDeadline": f"hybrid({FIRST}, cutoff=adaptive_deadline(0.5), work=fit_deadline)",
    "ResourceAware + FitDeadline": (
        "hybrid(selection=resource_aware(1/3), cutoff=adaptive_deadline(0.8), work=fit_deadline)"
    ),
    "FirstK": f"hybrid({FIRST}, cutoff=first_k(0.5))",
    "FirstK, inverse inclusion": f"hybrid({FIRST}, cutoff=first_k(0.5), inclusion='inverse')",
    "FedPA": f"fedpa({FIRST})",
    "FedAsync": "fedasync",
    "FedBuff": "fedbuff(k=10)",
    "FedCompass": "fedcompass(q_min=5, q_max=40)",
}


def main() -> None:
    """Run each strategy, print a table and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=60)
    parser.add_argument(
        "--messages", type=int, default=1600, help="train messages a strategy (default: 1600)"
    )
    parser.add_argument("--alpha", type=float, default=1.0, help="Dirichlet: small is skewed (default: 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--dropout", action="store_true", help="also with 20 %% of the nodes failing in each round"
    )
    parser.add_argument("--only", nargs="*", choices=SPECS, default=list(SPECS), metavar="NAME")
    parser.add_argument("--json", action="store_true", help="print the JSON object alone")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    names = list(dict.fromkeys([BASELINE, *args.only]))
    console = Console(stderr=True, quiet=args.json)
    plans = [(name, drop) for name in names for drop in ([0.0, 0.2] if args.dropout else [0.0])]
    curves: dict[tuple[str, float], list[Point]] = {}
    target = math.inf
    for name, drop in track(plans, "rehearsing", console=console, transient=True):
        rehearsal = Rehearsal(args.nodes, args.alpha, args.seed, drop)
        most = 4 * args.messages if curves else args.messages
        curves[name, drop] = curve = rehearsal.run(SPECS[name], args.messages, most, target)
        target = smooth(curve)[-1] - 0.01 if len(curves) == 1 else target
    rows = table(curves, target)
    result = {"nodes": args.nodes, "messages": args.messages, "alpha": args.alpha, "seed": args.seed}
    if not args.json:
        show(rows)
    print(json.dumps(result | {"target": rows[0]["target"], "rows": rows}))


@dataclass
class Point:
    """An evaluation: when (virtual seconds), after how many train messages, and how good."""

    time_s: float
    messages: int
    accuracy: float


class Rehearsal:
    """A federation in this process whose nodes' speed is drawn from the seed."""

    def __init__(self, nodes: int, alpha: float, seed: int, dropout: float) -> None:
        self.task = load(TaskOptions(partitioner="dirichlet", alpha=alpha, seed=seed))
        self.nodes, self.seed, self.dropout = nodes, seed, dropout
        rng = np.random.default_rng(seed)
        self.step_s = MEDIAN_STEP_S * rng.lognormal(0.0, 1.0, nodes)
        self.asked = 0
        self.grid = InProcessGrid(self._app(), [self._node(i) for i in range(nodes)])

    def run(self, spec: str, messages: int, most: int, target: float) -> list[Point]:
        """Send so many messages, and on until the target, but no more than ``most``."""
        strategy, model, test = parse(spec), self.task.build_model(), self.task.load_test()
        curve: list[Point] = []
        reached = False

        def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord:
            self.task.set_weights(model, to_weights(arrays))
            metrics = self.task.evaluate(model, test)
            curve.append(Point(self.grid.clock.now(), self.asked, metrics["accuracy"]))
            nonlocal reached
            reached = reached or latest(curve) >= target
            if self.asked >= most or (self.asked >= messages and (reached or target == math.inf)):
                raise Enough
            return MetricRecord({"accuracy": metrics["accuracy"]})

        strategy.settings = replace(strategy.settings, seed=self.seed, fraction_evaluate=0.0)
        start = to_record(self.task.weights(model))
        with suppress(Enough):  # the curve is what counts
            strategy.start(self.grid, start, num_rounds=10**6, timeout=10**9, evaluate_fn=evaluate)
        return curve

    def _app(self) -> ClientApp:
        app, task = ClientApp(mods=[CompressUpdates()]), self.task

        @app.train()
        def train(message: Message, context: Context) -> Message:
            index = int(context.node_config[PARTITION_ID])
            examples, model = task.load_partition(index, self.nodes), task.build_model()
            (record,) = message.content.array_records.values()
            task.set_weights(model, to_weights(record))
            config, steps = config_of(message), self._steps(message, index)
            how = Training(
                lr=0.05 * budget_of(message).lr_factor,
                batch_size=8,
                steps=steps,
                seed=seed_of(self.seed, int(config[SERVER_ROUND]), index),
                proximal_mu=float(config.get(PROXIMAL_MU, 0.0)),
            )
            metrics = dict(task.train(model, examples, how)) | {
                "num-examples": len(examples),
                NUM_STEPS: steps,
                EFFECTIVE_STEPS: effective_steps(steps, 0.9),
                TRAIN_S: steps * float(self.step_s[index]),
            }
            content = {"arrays": to_record(task.weights(model)), "metrics": MetricRecord(metrics)}
            return Message(RecordDict(content), reply_to=message)

        return app

    def _node(self, index: int) -> InProcessNode:
        def delay(message: Message) -> float:
            if message.metadata.message_type == PROFILE_QUERY:
                return OVERHEAD_S
            self.asked += 1
            return OVERHEAD_S + self._steps(message, index) * float(self.step_s[index])

        def fails(message: Message) -> str | None:
            number = config_of(message).get(SERVER_ROUND, 0)
            out = random.Random(f"{self.seed} {number} {index}").random() < self.dropout
            return "dropped out" if out else None

        return InProcessNode(f"node-{index}", delay, fails=fails if self.dropout else None)

    def _steps(self, message: Message, index: int) -> int:
        """What the message's budget lets a node of this speed do: five epochs where it says nothing."""
        full = 5 * math.ceil(len(self.task.load_partition(index, self.nodes)) / 8)
        in_time = float(config_of(message).get(DEADLINE_S, math.inf)) / float(self.step_s[index])
        return max(1, min(budget_of(message).steps(full), int(min(in_time, 1e9))))


class Enough(Exception):
    """The messages are used up."""


def table(curves: dict[tuple[str, float], list[Point]], target: float) -> list[dict]:
    """Time to the target for each, and ratios to the baseline's."""
    rows = []
    for (name, drop), curve in curves.items():
        final, reached = smooth(curve), None
        for point, accuracy in zip(curve, final, strict=True):
            if accuracy >= target:
                reached = point
                break
        rows.append(
            {
                "name": name,
                "dropout": drop,
                "target": round(target, 4),
                "hours": None if reached is None else round(reached.time_s / 3600, 3),
                "messages": None if reached is None else reached.messages,
                "final": round(final[-1], 4),
                "versions": len(curve) - 1,
                "total_hours": round(curve[-1].time_s / 3600, 3),
            }
        )
    base = rows[0]["hours"]
    return [r | {"faster": None if r["hours"] is None else round(base / r["hours"], 2)} for r in rows]


def smooth(curve: list[Point]) -> list[float]:
    """Mean accuracy over the last 100 messages: single models of small batches jump."""
    return [latest(curve[: i + 1]) for i in range(len(curve))]


def latest(curve: list[Point]) -> float:
    """The last of :func:`smooth`."""
    last = curve[-1]
    near = takewhile(lambda p: p is last or p.messages > last.messages - 100, reversed(curve))
    return float(np.mean([p.accuracy for p in near]))


def show(rows: list[dict]) -> None:
    """Print the table."""
    print(f"virtual hours to accuracy {rows[0]['target']:.3f}, and after all messages")
    print(f"{'':29}{'dropout':>8}{'hours':>8}{'faster':>8}{'messages':>9}{'final':>8}{'hours in all':>14}")
    for r in rows:
        hours = "never" if r["hours"] is None else f"{r['hours']:.2f}"
        faster = "-" if r["faster"] is None else f"{r['faster']:.1f}x"
        print(
            f"{r['name']:29}{r['dropout']:>8.0%}{hours:>8}{faster:>8}{r['messages'] or '-':>9}"
            f"{r['final']:>8.3f}{r['total_hours']:>14.2f}"
        )


if __name__ == "__main__":
    main()
