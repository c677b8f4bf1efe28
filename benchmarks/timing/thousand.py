"""Case ``thousand``: many logical nodes on 4 worker ranks."""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from . import commands
from .echo import Order
from .saying import Bar, say, show_bars

MOST_MB = 500.0


def measure_thousand(quick: bool) -> dict[str, Any]:
    """3 rounds of 1,000 nodes with a model of 1 MB; the most memory of rank 0's own process."""
    nodes, rounds = (50, 2) if quick else (1000, 3)
    folder = Path(tempfile.mkdtemp(prefix="flower-hpc-thousand-"))
    say(f"  {nodes} nodes, {rounds} rounds")
    try:
        began = time.perf_counter()
        ran = commands.mpi(folder, Order(250_000, rounds - 1, nodes=nodes))
        whole_s = time.perf_counter() - began
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    found = {"nodes": nodes, "rounds": rounds, "whole_s": round(whole_s, 2), "round_s": round(ran.round_s, 3)}
    bar = Bar(f"rank 0's peak, MB, of {MOST_MB:g}", ran.server_mb / MOST_MB, at_most=1.0)
    return found | {"peak_mb": round(ran.server_mb, 1), "bars": [bar.row()]}


def show_thousand(found: dict[str, Any]) -> None:
    """Print it."""
    print(f"\n{found['nodes']} nodes on 4 worker ranks, a model of 1 MB: {found['rounds']} rounds")
    print(f"whole command {found['whole_s']:.1f} s, a round {found['round_s']:.2f} s (median but the first)")
    print(f"peak of rank 0's own process: {found['peak_mb']:.0f} MB")
    show_bars(found["bars"])
