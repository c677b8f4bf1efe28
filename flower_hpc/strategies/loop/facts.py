"""What schedulers know of nodes: ``facts.jsonl``, which launchers' controllers append to, read as it grows.

One JSON object a line: ``name``, ``state`` and ``reason`` (text) and ``time`` (seconds since the epoch); of a
pending job also ``starts-at``, where its scheduler expects it to start.
"""

import json
import os
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from .log import LOG


class NodeFact(StrEnum):
    """The states that have a meaning here."""

    PENDING = "pending"
    RUNNING = "running"
    LEAVING = "leaving"
    PREEMPTED = "preempted"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


GONE = frozenset({NodeFact.PREEMPTED, NodeFact.FAILED, NodeFact.TIMEOUT, NodeFact.CANCELLED})


@dataclass(frozen=True)
class Fact:
    """What a scheduler said of a node.

    Parameters
    ----------
    name : str
        The node's name in the federation.
    state : str
        A :class:`NodeFact`, or a word that is unknown here: kept, but neither gone, waiting nor up.
    reason : str
        The scheduler's own words; may be empty.
    time : float
        When it was said, in seconds since the epoch.
    starts_at : float, optional
        When a pending job is expected to start, in seconds since the epoch.
    """

    name: str
    state: str
    reason: str
    time: float
    starts_at: float | None = None

    @property
    def gone(self) -> bool:
        """The job ended without being asked to: preempted, failed, out of time or cancelled."""
        return self.state in GONE

    @property
    def waits(self) -> bool:
        """The job is in the queue."""
        return self.state == NodeFact.PENDING

    @property
    def waiting(self) -> dict[str, str | float | None]:
        """Of a job in the queue, as an event tells it."""
        return {"node": self.name, "reason": self.reason, "starts_at": self.starts_at}

    @property
    def leaves(self) -> bool:
        """It runs, and its host will be taken away within minutes: it answers, and should get nothing new."""
        return self.state == NodeFact.LEAVING

    @property
    def up(self) -> bool:
        """The job is running."""
        return self.state == NodeFact.RUNNING


class FactsReader:
    """The one reader of a file of facts; it never raises on what it finds there.

    Parameters
    ----------
    path : Path, optional
        The file, which may come later; None reads nothing.

    Attributes
    ----------
    position : int
        Bytes read so far, to be saved with a run and given back after a resume. Where it cannot be the
        start of a line of the file found there, the file is a new one and is read from its start.
    """

    def __init__(self, path: Path | None) -> None:
        self.path, self.position = path, 0
        self._seen: tuple[int, ...] = ()  # device, inode, size, time of change
        self._trouble = ""

    def read(self) -> list[Fact]:
        """Facts appended since the last call, oldest first; a half-written last line waits for the next."""
        if self.path is None:
            return []
        try:
            if _identity(os.stat(self.path)) == self._seen:
                return []
            start, data = self._appended(self.path)
        except FileNotFoundError:
            self._seen = ()
            return []
        except OSError as error:
            if str(error) != self._trouble:  # once, not at every poll
                LOG.warning("cannot read facts: %s", error)
            self._seen, self._trouble = (), str(error)
            return []
        self._trouble = ""
        return self._parsed(start, data)

    def _appended(self, path: Path) -> tuple[int, bytes]:
        with path.open("rb") as file:
            found = _identity(os.fstat(file.fileno()))
            replaced = bool(self._seen) and found[:2] != self._seen[:2]
            if replaced or found[2] < self.position or not _starts_line(file, self.position):
                self.position = 0
            start = self.position
            file.seek(start)
            data = file.read()
        data = data[: data.rfind(b"\n") + 1]
        self._seen, self.position = found, start + len(data)
        return start, data

    def _parsed(self, offset: int, data: bytes) -> list[Fact]:
        facts = []
        for line in BytesIO(data):
            try:
                if line.strip():
                    facts.append(parse(line))
            except (ValueError, RecursionError) as error:
                LOG.warning("skipping a line at byte %d of %s: %s", offset, self.path, error)
            offset += len(line)
        return facts


def parse(line: bytes) -> Fact:
    """One line as a fact; ValueError says why it is none. Other fields are ignored."""
    fields = json.loads(line.decode())
    if not isinstance(fields, dict):
        raise ValueError(f"expected an object, got {type(fields).__name__}")
    name, state, reason = (_text(fields, key) for key in ("name", "state", "reason"))
    time = fields.get("time")
    if isinstance(time, bool) or not isinstance(time, int | float) or not abs(time) < 1e300:
        raise ValueError("time must be a number of seconds")
    starts_at = fields.get("starts-at")
    usable = isinstance(starts_at, int | float) and not isinstance(starts_at, bool) and abs(starts_at) < 1e300
    return Fact(name, state, reason, float(time), float(starts_at) if usable else None)  # type: ignore[arg-type]


def _text(fields: dict[str, Any], key: str) -> str:
    if not isinstance(fields.get(key), str):
        raise ValueError(f"{key} must be text")
    return str(fields[key])


def _identity(stat: os.stat_result) -> tuple[int, ...]:
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def _starts_line(file: BinaryIO, position: int) -> bool:
    if position == 0:
        return True
    file.seek(position - 1)
    return file.read(1) == b"\n"
