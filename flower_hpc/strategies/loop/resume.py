"""What a run needs to go on where it stopped: gathered after each aggregation, put back by ``resume``."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp.strategy import Result, Strategy

from ...errors import ConfigError, RunError
from ...telemetry import read_events
from ...telemetry.events import FILE as EVENTS
from ..inner import layers
from ..options import Settings
from .checkpoint import Checkpoints
from .collect import Collector, Flight, Online
from .intake import Intake
from .log import LOG
from .outcomes import Outcomes
from .state import RunState

FOLDER = "checkpoints"
ANEW = "to train anew, start a new run"
METRICS = ("train_metrics_clientapp", "evaluate_metrics_clientapp", "evaluate_metrics_serverapp")
PLAIN = (type(None), bool, int, float, str, np.ndarray, np.generic, ArrayRecord)


class Savepoint:
    """Saves the parts of a run as a checkpoint, and puts them back.

    Parameters
    ----------
    settings, state, intake, collector, outcomes, result
        Of the run.
    """

    def __init__(
        self,
        settings: Settings,
        state: RunState,
        intake: Intake,
        collector: Collector,
        outcomes: Outcomes,
        result: Result,
    ) -> None:
        self._settings, self._state, self._intake = settings, state, intake
        self._collector, self._outcomes, self._result = collector, outcomes, result
        self._files: Checkpoints | None = None
        if settings.run_dir is not None and settings.checkpoint_every:
            self._files = Checkpoints(settings.run_dir / FOLDER, settings.keep_checkpoints)
        self._fresh = not settings.resume
        self._unsaved: set[str] = set()
        self._made = [dict(vars(layer)) for layer in inner_layers(settings)]

    def save(self) -> None:
        """Save, if the round is one of those to save."""
        if self._files is None or self._state.round % self._settings.checkpoint_every:
            return
        if self._fresh and self._settings.run_dir is not None:  # those of an earlier run here would be newer
            shutil.rmtree(self._settings.run_dir / FOLDER, ignore_errors=True)
        self._fresh = False
        with self._collector.lock:
            tree = self._tree()
        tree["inner"] = self._inner()
        self._files.save(self._state.round, tree)

    def load(self) -> dict[str, Any] | None:
        """Put back the newest checkpoint that is whole; returns what to tell of it, of round 0 if none is.

        Raises
        ------
        RunError
            The checkpoint is of another model.
        ConfigError
            There were checkpoints, and none is left that is whole.
        """
        if self._files is None:
            if self._settings.run_dir is not None:
                refuse_if_gone(self._settings.run_dir, 0)
            return None
        found = self._files.latest()
        if found is None:
            self._refuse_to_begin_anew(self._files)
            LOG.warning("nothing to resume in %s: the run starts from round 1", self._settings.run_dir)
            return {"round": 0, "version": 0, "in_flight": [], "lost": [], "damaged": []}
        number, tree = found
        self._check(tree["intake"]["model"]["record"])
        self._state.restore(tree["state"])
        self._intake.restore(tree["intake"])
        self._outcomes.facts.position = tree["facts"]
        for name in METRICS:
            setattr(self._result, name, {n: MetricRecord(m) for n, m in tree["metrics"][name].items()})
        for layer, saved in zip(inner_layers(self._settings), tree["inner"], strict=False):
            vars(layer).update(saved)
        kept = self._adopt(tree) if tree["grid_run"] == self._grid_run() else []
        if not kept:
            self._intake.bases = {}
        lost = sorted(f["node"]["name"] for f in tree["flights"] if f not in kept)
        return {
            "round": number,
            "version": self._intake.model.version,
            "in_flight": sorted(f["node"]["name"] for f in kept),
            "lost": lost,
            "damaged": list(self._files.damaged),
        }

    def _refuse_to_begin_anew(self, files: Checkpoints) -> None:
        if files.damaged:
            words = f"every checkpoint in {files.folder} is damaged: {'; '.join(files.damaged)}"
            raise ConfigError(f"resume: {words}; {ANEW}")
        refuse_if_gone(files.folder.parent, self._settings.checkpoint_every)

    def _tree(self) -> dict[str, Any]:
        flights = [{"id": i, **asdict(f)} for i, f in self._collector.flights.items() if f.kind == "train"]
        return {
            "state": self._state.to_tree(),
            "intake": self._intake.to_tree(),
            "facts": self._outcomes.facts.position,
            "metrics": {
                name: {n: dict(m) for n, m in getattr(self._result, name).items()} for name in METRICS
            },
            "flights": flights,
            "grid_run": self._grid_run(),
        }

    def _inner(self) -> list[dict[str, Any]]:
        found = []
        for layer, made in zip(inner_layers(self._settings), self._made, strict=True):
            # its settings are the next attempt's own, which may differ: only what has changed is state
            changed = {k: v for k, v in vars(layer).items() if k not in made or not same(v, made[k])}
            state = {k: v for k, v in changed.items() if is_plain(v)}
            left = changed.keys() - state.keys()
            if new := {f"{type(layer).__name__}.{k}" for k in left} - self._unsaved:
                LOG.warning("checkpoints do not hold %s, which resume starts anew", ", ".join(sorted(new)))
                self._unsaved |= new
            found.append(state)
        return found

    def _adopt(self, tree: Mapping[str, Any]) -> list[dict[str, Any]]:
        # the same run of the same grid: it still knows these messages
        now, wall, kept = self._state.clock.now(), self._state.clock.wall(), []
        for saved in tree["flights"]:
            fields = {k: v for k, v in saved.items() if k not in ("id", "node")}
            flight = Flight(Online(**saved["node"]), **fields)
            flight.sent_at = now - max(0.0, wall - flight.sent_wall)
            if flight.version in self._intake.bases or flight.version == self._intake.model.version:
                self._collector.flights[saved["id"]] = flight
                kept.append(saved)
        return kept

    def _grid_run(self) -> int:
        return int(self._collector.grid.run.run_id)

    def _check(self, record: ArrayRecord) -> None:
        def shapes(of: ArrayRecord) -> dict[str, tuple[str, tuple[int, ...]]]:
            return {k: (x.dtype, tuple(x.shape)) for k, x in of.items()}

        if shapes(record) != shapes(self._intake.model.record):
            raise RunError(f"the checkpoint in {self._settings.run_dir} is of another model than the app's")


def refuse_if_gone(folder: Path, every: int) -> None:
    """ConfigError where a run saved rounds and no checkpoint is left: nobody wants them repeated."""
    if any((folder / FOLDER).glob("round-*.safetensors")):
        return
    rounds = [e["round"] for e in read_events(folder / EVENTS) if e["event"] == "aggregated"]
    if not every and rounds:
        raise ConfigError(f"resume: the run in {folder} keeps no checkpoints: checkpoint_every=0; {ANEW}")
    if saved := [n for n in rounds if n % every == 0]:
        words = f"the checkpoints in {folder / FOLDER} are gone, the last was of round {saved[-1]}"
        raise ConfigError(f"resume: {words}; {ANEW}")


def inner_layers(settings: Settings) -> list[Strategy]:
    """The inner strategy and those that it wraps, or nothing."""
    return layers(settings.inner) if settings.inner is not None else []


def same(value: object, before: object) -> bool:
    """Whether a value is what it was; of what can be changed in place nobody knows."""
    immutable = isinstance(value, bool | int | float | str | type(None)) or callable(value)
    return value == before if immutable else value is before and isinstance(value, Strategy)


def is_plain(value: object) -> bool:
    """True for what a checkpoint can hold: numbers, texts, arrays, and lists and dicts of them."""
    if type(value) in (list, tuple):
        return all(is_plain(v) for v in value)  # type: ignore[attr-defined]
    if type(value) is dict:
        return all(isinstance(k, str | int) and is_plain(v) for k, v in value.items())
    return isinstance(value, PLAIN)
