"""Rank 0's part of ``flower-hpc mpi``: which run is meant, its ServerApp, its result."""

import logging
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, FlowerHpcError, RunError
from ..federation.runs import App, Scalar, Submitted, begin, check_name, new_name
from ..federation.state import StateDir, home
from ..protocol import STATE_ENV
from ..telemetry import follow_events
from ..telemetry.events import FILE as EVENTS
from ..telemetry.interruption import signal_of
from ..telemetry.progress import show
from ..transport.mpi import Line, Setup
from ..transport.mpi.guard import Note
from ..transport.mpi.job import Parts, dismiss, federation, serve
from .blame import unloadable
from .common import ERR
from .follow import result_of
from .options import Order
from .past import Past
from .run import STRATEGY, check, check_names, folder_of, overridden, report

STATE = "_mpi"
"""The state folder of all such runs: no federation can have the name."""


def lead(order: Order, line: Line, note: Note) -> None:
    """Run it, and print its result."""
    report(_run(order, line, note), order.json)


def _run(order: Order, line: Line, note: Note) -> dict[str, Any]:
    try:
        job = _job(order, line.size - 1)
        parts = Parts(job.app.path, job.app.components["serverapp"], job.app.components["clientapp"])
        run = job.begin()
    except BaseException:
        dismiss(line)
        raise
    setup = Setup(
        nodes=job.nodes,
        run_config=job.app.configured(job.overrides),
        state=run.folder / "nodes",
        run_id=run.run_id,
        run_name=run.name,
    )
    note.write(setup.epitaph())
    ERR.print(f"run {run.name}: {job.nodes} nodes on {line.size - 1} ranks", highlight=False)
    with _logged(run.folder / "server.log"), _shown(run), federation(line, setup, parts) as grid:
        try:
            serve(grid, setup, parts)
        except FlowerHpcError:
            raise
        except BaseException as error:
            if signal_of(error):
                again = f"with --resume {run.name} in place of the app it goes on"
                ERR.print(f"run {run.name} is interrupted: {again}", highlight=False, soft_wrap=True)
                raise
            logging.getLogger("flwr").exception("the ServerApp raised an error")
            log = run.folder / "server.log"
            if bad := unloadable(error, job.app):
                raise ConfigError(f"run {run.name} failed: {bad} (log: {log})") from error
            words = f"{type(error).__name__}: {error} (log: {log})"
            raise RunError(f"run {run.name} failed: {words}") from error
    return result_of(run) | {"folder": str(run.folder)}


@dataclass(frozen=True)
class _Job:
    """A run that is about to begin."""

    app: App
    overrides: dict[str, Scalar]
    name: str
    nodes: int
    state: StateDir
    past: Past | None

    def begin(self) -> Submitted:
        self.state.create()
        os.environ[STATE_ENV] = str(self.state.path)
        return begin(
            self.state.path,
            STATE,
            self.app,
            self.overrides,
            lambda config: secrets.randbits(62),
            name=self.name,
            strategy=str(self.overrides[STRATEGY]) if STRATEGY in self.overrides else None,
            nodes=self.nodes,
            resume=self.past.folder if self.past else None,
        )


def _job(order: Order, ranks: int) -> _Job:
    check_names(order.app, order.resume, order.name)
    past = Past.find(order.resume) if order.resume is not None else None
    app = App.read(folder_of(order.app) if order.app is not None else past.app if past else Path())
    if missing := {"serverapp", "clientapp"} - app.components.keys():
        raise ConfigError(f"app {app.name}: [tool.flwr.app.components] names no {', '.join(sorted(missing))}")
    overrides = overridden(app, past, order.strategy, order.settings, order.run_config, order.data_dir)
    nodes = order.nodes or (past.nodes if past else ranks)
    check(app, app.configured(overrides), nodes, resume=past.folder if past else None)
    state = StateDir(home() / STATE)
    name = past.name if past else order.name or new_name(app.name)
    if past is None:
        check_name(state.path, name)
    return _Job(app, overrides, name, nodes, state, past)


@contextmanager
def _shown(run: Submitted) -> Iterator[None]:
    """Progress, while the ServerApp runs."""
    over = threading.Event()
    events = follow_events(run.folder / EVENTS, over.is_set, position=run.read_from)
    thread = threading.Thread(target=show, args=(events, ERR), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(5)


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Flower's log, in a file instead of between the lines of progress."""
    log = logging.getLogger("flwr")
    before, file = list(log.handlers), logging.FileHandler(path)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.handlers = [file]
    try:
        yield
    finally:
        log.handlers = before
        file.close()
