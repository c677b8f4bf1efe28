"""Section ``accuracy``: what compression costs where nodes differ, with error feedback and without."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from flower_hpc.compression import CompressUpdates
from flower_hpc.protocol import PARTITION_ID, SERVER_ROUND, config_of
from flower_hpc.records import num_bytes, to_record, to_weights
from flower_hpc.strategies import HybridStrategy
from flower_hpc.tasks import TaskOptions, Training, load, seed_of
from flower_hpc.transport import InProcessGrid

from .measure import wire_bytes
from .results import Results, say

NODES, LAST = 20, 5
TEST, QUICK_TEST = 5000, 500  # test images, of the last rounds and of those before
SMALL = 100  # not 1000: the model is a hundredth of what the default is made for
BASELINE = "uncompressed"
BOLD, MOST_LOST = "topk(0.1)>>int4", 0.5  # 37x on the wire of a ResNet-18; points of accuracy
SETTINGS: dict[str, dict[str, Any]] = {
    BASELINE: {},
    "int8": {"up": "int8"},
    "topk(0.1)>>int8": {"up": "topk(0.1)>>int8"},
    "topk(0.1)>>int4": {"up": "topk(0.1)>>int4"},
    "topk(0.1)>>int4, no feedback": {"up": "topk(0.1)>>int4", "feedback": False},
    "topk(0.01)>>int8": {"up": "topk(0.01)>>int8"},
    "topk(0.01)>>int8, no feedback": {"up": "topk(0.01)>>int8", "feedback": False},
}
CHANGES: dict[str, dict[str, Any]] = {
    "decay=0.9": {"decay": 0.9},
    "decay=0.5": {"decay": 0.5},
    "momentum=0.5": {"momentum": 0.5},
    "small=1000": {"small": 1000},
}
TRIALS: dict[str, dict[str, Any]] = {
    f"{up}, {words}": {"up": up} | change
    for up in ("topk(0.1)>>int4", "topk(0.01)>>int8")
    for words, change in CHANGES.items()
} | {f"topk({ratio},scope=array)>>int8": {"up": f"topk({ratio},scope=array)>>int8"} for ratio in (0.05, 0.01)}


@dataclass(frozen=True)
class Plan:
    """How much is trained: rounds, steps a node and round, examples a step; ``lr`` falls linearly to 0."""

    rounds: int = 40
    steps: int = 32
    lr: float = 0.01
    batch_size: int = 16
    classes: int = 3

    def made(self, run: dict[str, Any]) -> bool:
        """Whether a run is one of these."""
        return all(run[key] == value for key, value in asdict(self).items())


def compare(results: Results, plan: Plan, names: Sequence[str], seeds: Sequence[int]) -> None:
    """Run what the results lack, and keep each when it is done."""
    for seed in seeds:
        for name in names:
            have = [r for r in results.get("accuracy") if plan.made(r)]
            if not any((r["setting"], r["seed"]) == (name, seed) for r in have):
                results.append("accuracy", Rehearsal(plan, name, seed).run())


@dataclass
class Rehearsal:
    """One run of twenty nodes in this process; what a node keeps is in its ``context.state``."""

    plan: Plan
    name: str
    seed: int
    sent: dict[int, list[tuple[int, int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        classes = self.plan.classes
        self.task = load(
            TaskOptions(task="cifar10", partitioner="pathological", classes_per_node=classes, seed=self.seed)
        )

    def run(self) -> dict[str, Any]:
        """The curve, and what a node sent on average in each round."""
        model, test = self.task.build_model(), self.task.load_test()
        curve, started = [], time.perf_counter()
        quick, test = test.select(np.arange(QUICK_TEST)), test.select(np.arange(TEST))

        def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord:
            self.task.set_weights(model, to_weights(arrays))
            whole = number > self.plan.rounds - LAST
            curve.append(self.task.evaluate(model, test if whole else quick)["accuracy"])
            if number % 5 == 0:
                spent = time.perf_counter() - started
                say(f"{self.name}, seed {self.seed}, round {number}: {curve[-1]:.3f}, {spent:.0f} s")
            return MetricRecord({"accuracy": curve[-1]})

        how = SETTINGS.get(self.name) or TRIALS.get(self.name, {})
        strategy = HybridStrategy(
            compression={"small": SMALL, **how}, seed=self.seed, fraction_evaluate=0.0, profile_every=0
        )
        grid = InProcessGrid(self._app(), NODES)
        start = to_record(self.task.weights(model))
        strategy.start(grid, start, num_rounds=self.plan.rounds, timeout=10**9, evaluate_fn=evaluate)
        sent = [np.mean(self.sent[number], axis=0).round().tolist() for number in sorted(self.sent)]
        return {
            **asdict(self.plan),
            "setting": self.name,
            "seed": self.seed,
            "accuracy": [round(a, 4) for a in curve],
            "final": round(float(np.mean(curve[-LAST:])), 5),
            "payload_bytes": [int(payload) for payload, _ in sent],
            "wire_bytes": [int(wire) for _, wire in sent],
            "seconds": round(time.perf_counter() - started),
        }

    def _app(self) -> ClientApp:
        app, task = ClientApp(mods=[self._weigh, CompressUpdates()]), self.task

        @app.train()
        def train(message: Message, context: Context) -> Message:
            index, number = int(context.node_config[PARTITION_ID]), round_of(message)
            examples, model = task.load_partition(index, NODES), task.build_model()
            (record,) = message.content.array_records.values()
            task.set_weights(model, to_weights(record))
            how = Training(
                lr=self.plan.lr * (1 - (number - 1) / self.plan.rounds),
                batch_size=self.plan.batch_size,
                steps=self.plan.steps,
                seed=seed_of(self.seed, number, index),
            )
            task.train(model, examples, how)
            content: dict[str, ArrayRecord | MetricRecord | ConfigRecord] = {
                "arrays": to_record(task.weights(model)),
                "metrics": MetricRecord({"num-examples": len(examples)}),
            }
            return Message(RecordDict(content), reply_to=message)

        return app

    def _weigh(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        number = round_of(message)  # read first: the app may change the message
        reply = call_next(message, context)
        (record,) = reply.content.array_records.values()
        self.sent.setdefault(number, []).append((num_bytes(record), wire_bytes(reply)))
        return reply


def round_of(message: Message) -> int:
    """The round that a message belongs to."""
    return int(str(config_of(message)[SERVER_ROUND]))


def show_accuracy(plan: Plan, every: list[dict[str, Any]]) -> None:
    """Print the table: each setting's mean over its seeds, and less the uncompressed runs of these seeds."""
    runs = [run for run in every if plan.made(run)]
    bases = {r["seed"]: r for r in runs if r["setting"] == BASELINE}
    if not bases:
        return
    print(
        f"\nCIFAR-10, {NODES} nodes of {plan.classes} classes, all in each of {plan.rounds} rounds of "
        f"{plan.steps} steps of {plan.batch_size}, lr {plan.lr:g} to 0; "
        f"test accuracy, mean over the last {LAST} rounds"
    )
    print(
        f"{'':32}{'seeds':>6}{'accuracy':>10}{'less uncompressed':>24}{'kB up, wire':>13}{'ratio':>8}"
        f"{'payload':>9}"
    )
    less: dict[str, float] = {}
    for name in dict.fromkeys([*SETTINGS, *TRIALS]):
        mine = [r for r in runs if r["setting"] == name and r["seed"] in bases]
        if not mine:
            continue
        points = [100 * (r["final"] - bases[r["seed"]]["final"]) for r in mine]
        less[name] = float(np.mean(points))
        words = f"{less[name]:+.2f} ({', '.join(f'{x:+.2f}' for x in points)})"
        wire, payload = mean(mine, "wire_bytes"), mean(mine, "payload_bytes")
        wires, payloads = mean([*bases.values()], "wire_bytes"), mean([*bases.values()], "payload_bytes")
        print(
            f"{name:32}{len(mine):>6}{100 * mean(mine, 'final'):>9.2f}%{words:>24}{wire / 1e3:>13.1f}"
            f"{wires / wire:>7.1f}x{payloads / payload:>8.1f}x"
        )
    if {BOLD, f"{BOLD}, no feedback"} <= less.keys():
        verdict = "met" if less[BOLD] > -MOST_LOST else "MISSED"
        print(f"bar: {BOLD} loses less than {MOST_LOST:g} points: {less[BOLD]:+.2f}, {verdict}")
        print(f"     without feedback {less[f'{BOLD}, no feedback'] - less[BOLD]:+.2f} against with it")
    tried = [r for r in every if (r["setting"], r["seed"]) == (BASELINE, min(bases))]
    tried = [r for r in tried if replace(plan, lr=r["lr"]).made(r)]
    by_lr = sorted((r["lr"], 100 * r["final"]) for r in tried)
    print("uncompressed by lr: " + ", ".join(f"{lr:g}: {final:.2f}%" for lr, final in by_lr))


def mean(runs: list[dict[str, Any]], key: str) -> float:
    """Of a figure, or of a list of them, over runs."""
    return float(np.mean([np.mean(run[key]) for run in runs]))
