"""Follow a run to its end: its events where it writes them, Flower's word for it otherwise."""

import json
import time
from collections.abc import Iterator
from typing import Any

from ..errors import ConfigError, FederationError, RunError
from ..federation import Federation
from ..federation.flwr_cli import log_of
from ..federation.runs import App, Submitted, state_of, stop
from ..telemetry import follow_events, read_events, summarise
from ..telemetry.events import FILE, Event
from ..telemetry.interruption import leave_word
from ..telemetry.progress import show
from ..telemetry.report import RESULT
from .blame import unloadable
from .common import ERR

ASK_EVERY_S = 5.0
RESULT_WAIT_S = 30.0
SILENT_AT_MOST_S = 60.0
LAST = ("run_finished", "run_failed")


def follow(federation: Federation, run: Submitted, app: App) -> dict[str, Any]:
    """Show progress until the run has ended; returns its result.

    Raises
    ------
    RunError, ConfigError
        The run failed; ConfigError where its own word for it is a wrong value, or the app cannot be loaded.
    """
    watch = _Watch(federation, run)
    try:
        show(watch.events(), ERR)
        if not watch.ended:
            watch.wait_for_flower()
    except (KeyboardInterrupt, SystemExit) as error:
        leave_word(run.folder, error)
        with ERR.status("stopping the run"):
            try:
                stop(federation.state_dir, federation.connection, run.run_id)
            except FederationError as trouble:
                ERR.print(f"the run could not be stopped: {trouble}", highlight=False)
        raise
    if watch.last is not None and watch.last["event"] == "run_failed":
        kind = ConfigError if watch.last["exit_code"] == ConfigError.exit_code else RunError
        hint = _hint(run) if kind is RunError else ""
        raise kind(f"run {run.name} failed: {watch.last['error']} (folder: {run.folder}){hint}")
    if watch.status.startswith("finished") and watch.status != "finished:completed":
        words = watch.details if watch.details not in ("", "N/A") else watch.status
        log = run.folder / "server.log"
        log.write_text(log_of(federation.state_dir, federation.connection, run.run_id))
        if bad := unloadable(log.read_text(), app):
            raise ConfigError(f"run {run.name} failed: {bad} (log: {log})")
        raise RunError(f"run {run.name} failed: {words} (log: {log}){_hint(run)}")
    return result_of(run)


class _Watch:
    """The two sources of a run's state."""

    def __init__(self, federation: Federation, run: Submitted) -> None:
        self._federation, self._run = federation, run
        self._asked_at = time.monotonic()
        self._silent_since: float | None = None
        self.last: Event | None = None
        self.status = self.details = ""

    @property
    def ended(self) -> bool:
        return self.last is not None or self.status.startswith("finished")

    def events(self) -> Iterator[Event]:
        for event in follow_events(self._run.folder / FILE, self._finished, position=self._run.read_from):
            if event["event"] in LAST:
                self.last = event
            self._asked_at = time.monotonic()  # it lives: no need to ask
            yield event

    def wait_for_flower(self) -> None:
        while not self.ended:
            time.sleep(1)
            self._ask()

    def _finished(self) -> bool:
        if not self.ended and time.monotonic() - self._asked_at > ASK_EVERY_S:
            self._ask()
        return self.ended

    def _ask(self) -> None:
        federation = self._federation
        # where its controller was killed, what runs goes on, and a new controller takes it over
        if not federation.is_up() and not federation.revive():
            raise FederationError(f"federation {federation.name} went down during run {self._run.name}")
        try:
            self.status, self.details = state_of(
                federation.state_dir, federation.connection, self._run.run_id
            )
            self._silent_since = None
        except FederationError:  # a SuperLink that was killed is started again
            now = time.monotonic()
            self._silent_since = now if self._silent_since is None else self._silent_since
            if now - self._silent_since > SILENT_AT_MOST_S:
                raise
        self._asked_at = time.monotonic()


def _hint(run: Submitted) -> str:
    saved = any((run.folder / "checkpoints").glob("*.safetensors"))
    return f"; `flower-hpc run --resume {run.name}` goes on from its last checkpoint" if saved else ""


def result_of(run: Submitted) -> dict[str, Any]:
    """What came of a run that has ended."""
    path, deadline = run.folder / RESULT, time.monotonic() + RESULT_WAIT_S
    if not (run.folder / FILE).exists():  # one of Flower's own strategies, which write no events
        return summarise([]) | {"run": run.name}
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    if path.exists():
        result: dict[str, Any] = json.loads(path.read_text())
        return result
    return summarise(read_events(run.folder / FILE))
