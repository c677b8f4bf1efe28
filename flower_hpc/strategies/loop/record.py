"""What a run leaves: its events, its result and its model, in a folder that one process at a time writes."""

from types import TracebackType
from typing import Self

from flwr.app import ArrayRecord

from ...clock import Clock
from ...errors import FlowerHpcError
from ...telemetry import EventLog, read_events, save_result
from ...telemetry.interruption import Signals, why_ended
from ...telemetry.runlock import RunLock
from ..options import Settings
from .tally import Tally


class Record:
    """Holds the run's folder while it is entered.

    Parameters
    ----------
    settings : Settings
        Of the run; without a ``run_dir`` nothing is written.
    clock : Clock
        Of the run.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._clock, self._lock = clock, RunLock(settings.run_dir)
        self._started = clock.now()
        self.tally, self._signals = Tally(), Signals()
        self.events = EventLog(settings.run_dir, clock, self.tally.add)

    def __enter__(self) -> Self:
        """Take the folder; RunError where another process has it."""
        self._lock.__enter__()
        self._signals.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let it go."""
        self._signals.__exit__(kind, error, trace)
        self._lock.__exit__(kind, error, trace)

    def end(self, error: BaseException | None, in_flight: list[str], arrays: ArrayRecord | None) -> None:
        """Write how it ended, the result and the model, also of a run that failed; None: it has no model."""
        seconds = round(self._clock.now() - self._started, 3)
        if error is None:
            self.events.write("run_finished", seconds=seconds, in_flight=in_flight)
        else:
            if isinstance(error, FlowerHpcError):
                words, code = str(error) or type(error).__name__, error.exit_code
            else:
                words, code = why_ended(self.events.folder, error, self._signals.heard)
            self.events.write("run_failed", seconds=seconds, error=words, exit_code=code)
        if self.events.path is not None and self.events.folder is not None:
            save_result(self.events.folder, read_events(self.events.path), arrays)
