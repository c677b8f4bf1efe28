"""Case ``columns``: what a round of 4 nodes that do no work costs, on each way to run them."""

import inspect
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.supernode import start_client_internal

from flower_hpc.errors import FlowerHpcError

from . import commands, superlinks
from .echo import Order, Ran
from .programs import Failed
from .saying import Bar, say, show_bars, table

NODES = 4
COLUMNS = {
    "stock": "stock SuperLink",
    "ours": "ours on SuperLink",
    "mpi": "ours on MPI",
    "ray": "Flower's Ray simulation",
}
ROUNDS, QUICK_ROUNDS = 5, 2
MORE = {"stock": 1, "ours": 1, "mpi": 5, "ray": 2}
"""Rounds where they take less than seconds, times as many."""
FASTER, OF_BARE, OF_STOCK = 300.0, 3.0, 0.5
"""Bars: MPI below stock; MPI of a plain broadcast and sum; above the floor, ours of stock's."""


@dataclass(frozen=True)
class Model:
    """A size of the model."""

    name: str
    floats: int
    torch: bool = False

    @property
    def mb(self) -> float:
        """Its bytes."""
        return self.floats * 4 / 1e6


TINY, TORCH = Model("tiny", 8), Model("tiny, torch", 8, torch=True)
MODELS = (TINY, TORCH, Model("10 MB", 2_500_000), Model("100 MB", 25_000_000))
LARGEST = MODELS[-1].name
QUICK_MODELS = (TINY, TORCH, Model("1 MB", 250_000))


def measure_columns(columns: Sequence[str], rounds: int | None, quick: bool) -> dict[str, Any]:
    """Rows, each a model in a column; MPI by itself; the floor; bars."""
    rows, models = [], QUICK_MODELS if quick else MODELS
    rounds = rounds or (QUICK_ROUNDS if quick else ROUNDS)
    folder = Path(tempfile.mkdtemp(prefix="flower-hpc-columns-"))
    bare = {}
    try:
        for column in columns:
            with runner(column, folder) as run:
                for model in models:  # small ones first: a process keeps what it once had
                    say(f"  {COLUMNS[column]}, {model.name}")
                    rows += measured(column, model, run, rounds)
        if "mpi" in columns:
            say("  MPI by itself")
            bare = {
                m.name: commands.bare(folder, m.floats, 3 if quick else 10) for m in models if not m.torch
            }
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    failed = [f"{c}, {m.name}" for c in columns for m in models if (c, m.name) not in _seconds(rows)]
    found = {"nodes": NODES, "failed": failed, "rows": rows, "bare_mpi": bare, "floor": floor()}
    return found | {"bars": [bar.row() for bar in bars(rows, bare)]}


@contextmanager
def runner(column: str, folder: Path) -> Iterator[superlinks.Runner]:
    """What runs the app in a column."""
    if column in ("stock", "ours"):
        with getattr(superlinks, column)(folder, NODES) as run:
            yield run
        return
    once: Callable[[Path, Order], Ran] = {"mpi": commands.mpi, "ray": commands.ray}[column]

    def alone(order: Order) -> tuple[Ran, float]:
        ran = once(folder, order)
        return ran, ran.server_mb

    yield alone


def measured(column: str, model: Model, run: superlinks.Runner, rounds: int) -> list[dict[str, Any]]:
    """One run; nothing where it fails, so that the others are not lost."""
    rounds *= MORE[column]
    if column == "mpi" and model.mb < 1:
        rounds *= 4  # of milliseconds
    try:
        ran, peak_mb = run(Order(model.floats, rounds, model.torch, NODES))
    except (Failed, FlowerHpcError) as error:
        say(f"    FAILED: {error}")
        return []
    say(f"    {ran.round_s:.4g} s a round, {peak_mb:.0f} MB")
    row = {
        "column": column,
        "model": model.name,
        "mb": model.mb,
        "rounds": len(ran.rounds_s),
        "round_s": round(ran.round_s, 6),
        "fastest_s": round(min(ran.rounds_s), 6),
        "slowest_s": round(max(ran.rounds_s), 6),
        "mb_s": round(2 * NODES * model.mb / ran.round_s, 3),
        "peak_mb": round(peak_mb, 1),
    }
    return [row]


def floor() -> dict[str, float]:
    """What Flower's SuperNode waits in a round, read from its source.

    Whoever has sent its reply asks at once for the next message. There cannot be one: the server must first
    get that reply, join it with the others and send the next round's. So the SuperNode sleeps ``idle_s``, the
    whole of it, in every round, and this is the floor that nobody gets below who leaves the SuperNode as it
    is. Beside it, it looks for its client's reply every ``look_s``, first as soon as it has the message, so
    that at least one such sleep is in every round, too; that is not counted as floor: it is the part above.
    """
    idle = inspect.getsource(start_client_internal.start_client_internal)
    look = inspect.getsource(start_client_internal._push_messages)
    return {"idle_s": sleeps(idle)[-1], "look_s": sleeps(look)[0]}


def sleeps(source: str) -> list[float]:
    """The constants that a function sleeps for."""
    return [float(text) for text in re.findall(r"time\.sleep\(([0-9.]+)\)", source)]


def bars(rows: list[dict[str, Any]], bare: dict[str, Any]) -> list[Bar]:
    """Those whose two sides were measured."""
    s, found = _seconds(rows), []
    if {("stock", "tiny"), ("mpi", "tiny")} <= s.keys():
        ratio = s["stock", "tiny"] / s["mpi", "tiny"]
        found.append(Bar("tiny model: stock SuperLink / ours on MPI", ratio, at_least=FASTER))
    if ("mpi", LARGEST) in s:
        ratio = s["mpi", LARGEST] / bare[LARGEST]["mpir_s"]
        found.append(Bar(f"{LARGEST}: ours on MPI / MPI_Bcast + MPI_Reduce", ratio, at_most=OF_BARE))
    if {("stock", TORCH.name), ("ours", TORCH.name)} <= s.keys():
        idle = floor()["idle_s"]
        ratio = (s["ours", TORCH.name] - idle) / (s["stock", TORCH.name] - idle)
        found.append(Bar("torch app, above the floor: ours / stock SuperLink", ratio, at_most=OF_STOCK))
    return found


def _seconds(rows: list[dict[str, Any]]) -> dict[tuple[str, str], float]:
    return {(row["column"], row["model"]): row["round_s"] for row in rows}


def show_columns(found: dict[str, Any]) -> None:
    """Print it all."""
    print(f"\n{found['nodes']} nodes that do no work; MB/s: the model down and up, of all nodes")
    head = ["", "model", "rounds", "median s", "fastest", "slowest", "MB/s", "server's peak MB"]
    rows = [head]
    for r in sorted(found["rows"], key=lambda r: [r["model"] != m.name for m in (*QUICK_MODELS, *MODELS)]):
        seconds = [f"{r[key]:.4g}" for key in ("round_s", "fastest_s", "slowest_s")]
        name = COLUMNS[r["column"]]
        rows.append([name, r["model"], str(r["rounds"]), *seconds, f"{r['mb_s']:.1f}", f"{r['peak_mb']:.0f}"])
    table(rows)
    for words in found["failed"]:
        print(f"FAILED: {words}")
    print("peak: of the process with the ServerApp; with a SuperLink, that and what it started beside")
    for model, seconds in found["bare_mpi"].items():
        mpir, default = seconds["mpir_s"], seconds["default_s"]
        print(
            f"MPI_Bcast + MPI_Reduce, {model}: {mpir:.4g} s ({default:.4g} s with MPICH's default broadcast)"
        )
    idle, look = found["floor"]["idle_s"], found["floor"]["look_s"]
    print(f"floor of a round on a SuperLink: its nodes' sleep of {idle:g} s (and at least one of {look:g} s)")
    for r in found["rows"]:
        if r["model"] == TORCH.name and r["column"] in ("stock", "ours"):
            print(f"  torch app, {COLUMNS[r['column']]}: {r['round_s'] - idle:.2f} s above the floor")
    show_bars(found["bars"])
