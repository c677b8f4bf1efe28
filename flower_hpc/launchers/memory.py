"""Which jobs a launcher has started: a file, for the launcher that comes after a killed one."""

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .base import JobSpec


@dataclass(frozen=True)
class Record:
    """A job: what of its spec matters once it runs, and how the scheduler calls it."""

    name: str
    log: Path
    log_start: int
    fingerprint: str
    stop_signal: int
    job: str = ""
    """The scheduler's id; empty until it has one, and where the ticket itself is it."""
    created: float = 0.0
    """When the process was created, in seconds since the epoch: pids are given again."""


class Memory:
    """Records by ticket, in a file that is replaced at each change; the caller holds its own lock.

    Parameters
    ----------
    path : Path, optional
        The file; default: nothing is remembered beyond this object.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._records = self._read()

    def note(
        self, ticket: str, spec: JobSpec, *, log_start: int | None = None, job: str = "", created: float = 0.0
    ) -> None:
        """Remember a job; ``log_start`` is where its output begins, default at the end of its log."""
        if log_start is None:
            log_start = spec.log.stat().st_size if spec.log.exists() else 0
        number = int(spec.stop_signal)
        self._records[ticket] = Record(
            spec.name, spec.log, log_start, spec.fingerprint, number, job=job, created=created
        )
        self._write()

    def name_job(self, ticket: str, job: str) -> None:
        """The scheduler's id of a job."""
        self._records[ticket] = replace(self._records[ticket], job=job)
        self._write()

    def restarts(self, ticket: str) -> None:
        """The job waits to be started: what it has written so far is of a former life."""
        old = self._records[ticket]
        size = old.log.stat().st_size if old.log.exists() else 0
        if size != old.log_start:
            self._records[ticket] = replace(old, log_start=size)
            self._write()

    def get(self, ticket: str) -> Record | None:
        """A job's record."""
        return self._records.get(ticket)

    def forget(self, ticket: str) -> Record | None:
        """Drop a job that is over, and return its record."""
        record = self._records.pop(ticket, None)
        if record is not None:
            self._write()
        return record

    def records(self) -> dict[str, Record]:
        """All of them."""
        return dict(self._records)

    def _read(self) -> dict[str, Record]:
        try:
            data: dict[str, dict[str, Any]] = json.loads(self.path.read_text("utf-8")) if self.path else {}
            return {ticket: Record(**{**one, "log": Path(one["log"])}) for ticket, one in data.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, KeyError, AttributeError):
            return {}  # a damaged one remembers nothing; its jobs are strays, and those are ended

    def _write(self) -> None:
        if self.path is None:
            return
        noted = {ticket: {**asdict(one), "log": str(one.log)} for ticket, one in self._records.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        part.write_text(json.dumps(noted, indent=1), encoding="utf-8")
        part.replace(self.path)
