"""What runs do at present, for autoscale: which go on, and which nodes they use."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..clock import WALL, Clock
from ..telemetry.events import FILE, Event
from . import leftovers
from .runs import is_running
from .state import StateDir

SUBMITTED_S = 60.0
"""So long a run counts as going on before its ServerApp holds its lock."""
APPS_EVERY_S = 10.0
APP = "flwr-serverapp"


@dataclass
class Followed:
    """A run and, from the end of its events, the nodes that it used in its last two rounds."""

    folder: Path
    began: float
    position: int = 0
    in_flight: set[str] = field(default_factory=set)
    rounds: tuple[set[str], set[str]] = field(default_factory=lambda: (set(), set()))

    @property
    def used(self) -> set[str]:
        """Nodes that work, or did lately."""
        return self.in_flight | self.rounds[0] | self.rounds[1]

    def read(self) -> None:
        """Fold in what was written since the last look."""
        for event in self._new():
            kind, node = event.get("event", ""), str(event.get("node", ""))
            if kind == "round_started":
                self.rounds = (self.rounds[1], set())
            elif kind == "sent":
                self.in_flight.add(node)
                self.rounds[1].add(node)
            elif node and (kind.startswith("reply_") or kind == "node_lost"):
                self.in_flight.discard(node)

    def _new(self) -> Iterator[Event]:
        try:
            with (self.folder / FILE).open("rb") as file:
                file.seek(self.position)
                for line in file:
                    if not line.endswith(b"\n"):
                        return
                    self.position += len(line)
                    yield json.loads(line)
        except (OSError, ValueError):  # not there yet, or no line of ours: a later look will tell
            return


class Activity:
    """Looks at the federation's runs; a look costs a listing of a folder and the ends of a few files.

    Parameters
    ----------
    state : StateDir
        The federation's.
    clock : Clock
        Default: the wall clock.
    """

    def __init__(self, state: StateDir, clock: Clock = WALL) -> None:
        self._state, self._clock = state, clock
        self._known: set[str] = set()
        self._runs: dict[Path, Followed] = {}
        self._apps_since: float | None = None
        self._apps_due = 0.0

    def look(self) -> None:
        """See what has changed."""
        self._find_new()
        for folder, run in list(self._runs.items()):
            if is_running(folder) or (
                self._clock.wall() - run.began < SUBMITTED_S and not _over(folder, run)
            ):
                run.read()
            else:
                del self._runs[folder]
        if self._runs:
            self._apps_since = None
        elif self._clock.now() >= self._apps_due:
            self._apps_due = self._clock.now() + APPS_EVERY_S
            here = any(APP in words for words in leftovers.find(self._state).values())
            self._apps_since = (self._apps_since or self._clock.wall()) if here else None

    @property
    def run(self) -> float | None:
        """Since when the latest run that is going on does so; None where there is none."""
        began = [run.began for run in self._runs.values()]
        return max(began) if began else self._apps_since

    @property
    def blind(self) -> bool:
        """Whether a run goes on that tells nothing of its nodes, such as one of Flower's own strategies."""
        silent = any(not run.position for run in self._runs.values())
        return silent or (not self._runs and self._apps_since is not None)

    @property
    def used(self) -> set[str]:
        """Nodes that runs use."""
        return {node for run in self._runs.values() for node in run.used}

    def _find_new(self) -> None:
        for path in (self._state.path / "requests").glob("*.json"):
            if path.name not in self._known:
                self._known.add(path.name)
                self._follow(path)

    def _follow(self, path: Path) -> None:
        try:
            request: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            folder, began = Path(request["run_dir"]), path.stat().st_mtime
        except (OSError, ValueError, KeyError, TypeError):
            return
        if is_running(folder) or self._clock.wall() - began < SUBMITTED_S:
            self._runs[folder] = Followed(folder, began, _start(folder) if request.get("resume") else 0)


def _start(folder: Path) -> int:
    # of a run that is resumed, only what it does now
    try:
        return (folder / FILE).stat().st_size
    except OSError:
        return 0


def _over(folder: Path, run: Followed) -> bool:
    try:
        return (folder / "result.json").stat().st_mtime >= run.began
    except OSError:
        return False
