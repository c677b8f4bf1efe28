"""Tells strategies what schedulers know of nodes: appends to ``facts.jsonl`` of the state folder."""

import json
from pathlib import Path

from ..clock import WALL, Clock

FILE = "facts.jsonl"
LEAVING = "leaving"
"""Of a node that still works, and whose host will be taken away within minutes."""
MOST_BYTES = 64 * 2**20


class Facts:
    """The one writer of the file; the ledger of each run tails it.

    Parameters
    ----------
    folder : Path
        The federation's state folder.
    clock : Clock
        Whose ``wall()`` dates the facts; default the wall clock.
    """

    def __init__(self, folder: Path, clock: Clock = WALL) -> None:
        self._path, self._clock = folder / FILE, clock
        self._last: dict[str, tuple[str, str]] = {}

    def tell(self, name: str, state: str, reason: str = "", starts_at: float | None = None) -> None:
        """Append a fact, unless it is what was told of the node last."""
        if self._last.get(name) == (state, reason):
            return
        self._last[name] = state, reason
        fact = {"name": name, "state": state, "reason": reason, "time": self._clock.wall()}
        if starts_at is not None:
            fact["starts-at"] = starts_at
        # readers start anew where it shrinks; a federation that lives for years should not fill a disk
        mode = "w" if self._path.exists() and self._path.stat().st_size > MOST_BYTES else "a"
        with self._path.open(mode, encoding="utf-8") as file:
            file.write(json.dumps(fact) + "\n")
