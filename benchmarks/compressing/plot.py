"""The curves of section ``accuracy``: by round, and by what a node has sent."""

from pathlib import Path
from typing import Any

import numpy as np

from .accuracy import SETTINGS

SMOOTH = 3  # rounds
OFF = ", no feedback"


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    """Draw an SVG: a line a setting, the mean over its seeds."""
    if not runs:
        return
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.fonttype"] = "none"  # words as words: small
    matplotlib.rcParams["svg.hashsalt"] = "flower-hpc"  # equal figures, equal bytes
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.5), sharey=True, layout="constrained")
    names = [name for name in SETTINGS if any(r["setting"] == name for r in runs)]
    for name in names:
        mine = [r for r in runs if r["setting"] == name]
        accuracy = 100 * np.mean([r["accuracy"][1:] for r in mine], axis=0)
        accuracy = np.array([accuracy[max(0, i + 1 - SMOOTH) : i + 1].mean() for i in range(len(accuracy))])
        sent = np.cumsum(np.mean([r["wire_bytes"] for r in mine], axis=0)) / 1e6
        codec = name.removesuffix(OFF)
        color = f"C{[n for n in SETTINGS if OFF not in n].index(codec)}"
        style = {"color": color, "ls": "-" if name == codec else "--", "lw": 1.3}
        left.plot(range(1, len(accuracy) + 1), accuracy, label=name, **style)
        right.plot(sent, accuracy, **style)
    left.set(xlabel="round", ylabel=f"test accuracy, %, mean of {SMOOTH} rounds")
    right.set(xlabel="MB up per node, on the wire", xscale="log")
    left.legend(fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
