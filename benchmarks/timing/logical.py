"""Case ``logical``: 64 nodes on 4 worker ranks learn as on InProcessGrid, and sooner than on Ray."""

import re
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from flower_hpc import apps
from flower_hpc.federation.runs import App
from flower_hpc.protocol import STATE_ENV
from flower_hpc.telemetry import read_events, summarise
from flower_hpc.telemetry.report import MODEL

from . import commands
from .saying import Bar, say, show_bars, table

FASTER = 5.0
FEDAVG = "flower.FedAvg(fraction_evaluate=0.0)"
FINISHED = re.compile(r"Strategy execution finished in ([0-9.]+)s")
SIDES = {"mpi": "ours on MPI", "ray": "Flower's Ray simulation", "inprocess": "InProcessGrid"}
NAME = "logical"


def measure_logical(quick: bool) -> dict[str, Any]:
    """The benchmark app, digits, with the same seed and the same strategy on each."""
    nodes, rounds = (8, 2) if quick else (64, 20)
    folder = Path(tempfile.mkdtemp(prefix="flower-hpc-logical-"))
    found: dict[str, Any] = {"nodes": nodes, "rounds": rounds}
    models = {}
    try:
        for side in SIDES:
            say(f"  {SIDES[side]}")
            (folder / side).mkdir()
            run, whole_s = learned(side, folder / side, nodes, rounds)
            found[side] = summary(run) | {"whole_s": round(whole_s, 2)}
            models[side] = load_file(run / MODEL)
        say("  with Flower's own FedAvg, on MPI and on Ray")
        found["fedavg"] = {side: with_fedavg(side, folder, nodes, rounds) for side in ("mpi", "ray")}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return found | judged(found, models)


def with_fedavg(side: str, folder: Path, nodes: int, rounds: int) -> dict[str, float]:
    """The same app with Flower's own strategy, which says itself how long its rounds took."""
    place = folder / f"{side}-fedavg"
    place.mkdir()
    run, whole_s = learned(side, place, nodes, rounds, FEDAVG)
    log = run / "server.log" if side == "mpi" else max(place.glob("ray-*.log"))
    (seconds,) = FINISHED.findall(log.read_text(errors="replace"))
    return {"rounds_s": float(seconds), "whole_s": round(whole_s, 2)}


def learned(side: str, folder: Path, nodes: int, rounds: int, strategy: str = "") -> tuple[Path, float]:
    """Run it; the run's folder, and the seconds of the whole command."""
    app = App.read(apps.path("benchmark"))
    config: dict[str, Any] = {"num-rounds": rounds}
    if side == "mpi":
        whole_s = commands.flower_hpc(folder, folder, app.path, 4, nodes, strategy, config, "--name", NAME)
        return folder / "home" / "_mpi" / "runs" / NAME, whole_s
    parts, config = app.components, config | ({"strategy": strategy} if strategy else {})
    whole_s = commands.simulated(
        side,
        folder,
        app.path,
        parts["serverapp"],
        parts["clientapp"],
        nodes,
        app.configured(config),
        **{STATE_ENV: str(folder)},
    )
    return folder / "run", whole_s


def summary(run: Path) -> dict[str, Any]:
    """From a run's events; the first round of Ray has the start of its actors in it, the median has not."""
    rounds = summarise(read_events(run / "events.jsonl"))["rounds"]
    assert all(row["failed"] == 0 and row["skipped"] is None for row in rounds)
    seconds = [row["seconds"] for row in rounds]
    times = {"rounds_s": round(sum(seconds), 2), "round_s": round(statistics.median(seconds[1:]), 4)}
    return times | {"accuracies": [row["accuracy"] for row in rounds]}


def judged(found: dict[str, Any], models: dict[str, Any]) -> dict[str, Any]:
    """Whether MPI comes to what InProcessGrid comes to, and how much longer Ray takes."""
    mine, theirs = found["mpi"], found["inprocess"]
    apart = [float(np.abs(x - models["inprocess"][name]).max()) for name, x in models["mpi"].items()]
    accuracies = zip(mine["accuracies"], theirs["accuracies"], strict=True)
    del theirs["rounds_s"], theirs["round_s"]  # in virtual time
    fedavg = found["fedavg"]
    bars = [
        Bar(f"{words}{who}: Ray / ours on MPI", ray[key] / mpi[key], at_least=FASTER)
        for who, mpi, ray in (("", mine, found["ray"]), (", FedAvg", fedavg["mpi"], fedavg["ray"]))
        for key, words in {"whole_s": "whole command", "rounds_s": "inside rounds"}.items()
    ]
    return {
        "accuracy_equal": mine["accuracies"][-1] == theirs["accuracies"][-1],
        "accuracy_apart": max(abs(a - b) for a, b in accuracies),
        "weights_apart": max(apart),
        "bars": [bar.row() for bar in bars],
    }


def show_logical(found: dict[str, Any]) -> None:
    """Print it."""
    print(f"\n{found['nodes']} nodes on 4 worker ranks, digits, {found['rounds']} rounds")
    rows = [["", "whole command s", "inside rounds s", "median round s", "final accuracy"]]
    for side, words in SIDES.items():
        r = found[side]
        inside = [f"{r[key]:.3g}" if key in r else "-" for key in ("rounds_s", "round_s")]
        rows.append([words, f"{r['whole_s']:.2f}", *inside, f"{r['accuracies'][-1]:.6f}"])
    for side, r in found["fedavg"].items():
        name = f"{SIDES[side]}, Flower's FedAvg"
        rows.append([name, f"{r['whole_s']:.2f}", f"{r['rounds_s']:.3g}", "-", "-"])
    table(rows)
    equal = "equal" if found["accuracy_equal"] else "DIFFERENT"
    apart, weights = found["accuracy_apart"], found["weights_apart"]
    print(f"MPI and InProcessGrid: final accuracy {equal}, any round at most {apart:.2g} apart,")
    print(f"final weights at most {weights:.2g} apart")
    show_bars(found["bars"])
