"""Removes what nodes keep of runs that are over: residuals take a model or two, for each node and run."""

import json
import shutil
from pathlib import Path

from ..clock import WALL, Clock
from ..protocol import RESIDUALS, UNNAMED, UNNAMED_AGE_S
from ..storage import file_name
from .state import StateDir

EVERY_S = 10.0


class Janitor:
    """Looks every ten seconds.

    A run that failed keeps its residuals, since it may be resumed; the nodes remove those after two weeks.

    Parameters
    ----------
    state : StateDir
        The federation's; the nodes of this machine have their folders in it, those of others elsewhere.
    clock : Clock
        When it is time to look.
    """

    def __init__(self, state: StateDir, clock: Clock = WALL) -> None:
        self._state, self._clock, self._next = state, clock, 0.0
        self.nodes: set[Path] = {state.nodes}
        """Folders with the nodes' folders in them."""

    def tick(self) -> None:
        """Look, if it is time to."""
        if self._clock.now() < self._next:
            return
        self._next = self._clock.now() + EVERY_S
        folders = [one for nodes in self.nodes for one in nodes.glob(f"*/{RESIDUALS}/*/*")]
        names = {folder.name for folder in folders}
        runs = [p for p in (self._state.path / "runs").glob("*") if names and file_name(p.name) in names]
        over = {file_name(run.name) for run in runs if finished(run)}
        for folder in folders:
            if folder.name in over or forgotten(folder, self._clock.wall()):
                shutil.rmtree(folder, ignore_errors=True)


def forgotten(folder: Path, now: float) -> bool:
    """Whether it is of a run without a name, which nobody can resume, and of yesterday."""
    try:
        return folder.name.startswith(UNNAMED) and now - folder.stat().st_mtime > UNNAMED_AGE_S
    except OSError:  # gone meanwhile
        return False


def finished(run: Path) -> bool:
    """Whether a run has come to its end, without an error, and nobody has resumed it since."""
    path, events = run / "result.json", run / "events.jsonl"
    try:
        result = json.loads(path.read_text())
        if path.stat().st_mtime_ns < events.stat().st_mtime_ns:
            return False
    except (OSError, ValueError):
        return False
    return bool(result.get("error") is None and result.get("seconds") is not None)
