"""Case ``first-step``: from a message to the first training step, of a ClientApp that imports torch."""

import json
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

from . import superlinks
from .echo import Order
from .saying import Bar, say, show_bars, table

SHORTER = 5.0
WARM_UP = 2  # the first message teaches the warm server, which imports while the second waits
WHAT = {
    "from_command_s": "the SuperExec starts the command -> step",
    "from_send_s": "the server makes the message -> step",
}


def measure_first_step(rounds: int) -> dict[str, Any]:
    """One node, stock and warm; medians, in seconds, and all values.

    ``from_command_s`` begins where the SuperExec starts the process that answers the message, by the kernel's
    clock (10 ms): this is what warm clients are about. ``from_send_s`` begins where the server makes the
    message, so that it holds the SuperNode's own sleep of up to 3 s and the SuperExec's polls, too. Both end
    at the first line of the app's training function, after its imports.
    """
    found: dict[str, Any] = {}
    folder = Path(tempfile.mkdtemp(prefix="flower-hpc-step-"))
    try:
        for column in ("stock", "ours"):
            say(f"  {column}")
            with getattr(superlinks, column)(folder, 1) as run:
                run(Order(8, rounds + WARM_UP - 1, torch=True, nodes=1))
            lines = newest(folder)
            found["warm" if column == "ours" else column] = {
                key: {"median": round(statistics.median(values), 3), "all": [round(v, 3) for v in values]}
                for key in WHAT
                if (values := [line[key] for line in lines[WARM_UP:]])
            }
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    stock, warm = (found[side]["from_command_s"]["median"] for side in ("stock", "warm"))
    bar = Bar("command -> step: stock / warm", stock / warm, at_least=SHORTER)
    return found | {"bars": [bar.row()]}


def newest(folder: Path) -> list[dict[str, float]]:
    """What the node of the last run has noted."""
    path = max(folder.rglob("steps-*.jsonl"), key=lambda path: path.stat().st_mtime)
    return [json.loads(line) for line in path.read_text().splitlines()]


def show_first_step(found: dict[str, Any]) -> None:
    """Print the medians."""
    print("\nFrom a message to the first training step; one node, an app that imports torch; medians, s")
    rows = [["", "messages", "stock", "warm", "shorter"]]
    for key, words in WHAT.items():
        stock, warm = found["stock"][key], found["warm"][key]
        ratio = stock["median"] / warm["median"]
        cells = [str(len(warm["all"])), f"{stock['median']:.2f}", f"{warm['median']:.2f}", f"{ratio:.1f}x"]
        rows.append([words, *cells])
    table(rows)
    show_bars(found["bars"])
