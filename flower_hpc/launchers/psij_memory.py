"""The folder of a PSI/J launcher: scripts, exit codes, and what was started, so that another process can go on."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from .base import JobSpec

KINDS = ("sh", "json", "exit")


@dataclass
class Entry:
    """What is remembered of a job; ``native_id`` is the scheduler's, None until it has taken the job."""

    job_id: str
    name: str
    fingerprint: str
    log: str
    log_start: int
    native_id: str | None = None


@dataclass(frozen=True)
class Memory:
    """Files by job and kind: its script ``sh``, its entry ``json``, and its exit code ``exit``."""

    folder: Path

    def file(self, job_id: str, kind: str) -> Path:
        """Where it is; it need not be there."""
        return self.folder / f"{job_id}.{kind}"

    def write(self, job_id: str, kind: str, text: str) -> None:
        """Write a file at once and whole; OSError where it cannot."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.file(job_id, f"{kind}.part")
        # a script holds its job's variables, and secrets may be among them
        with open(part, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(text.encode(errors="surrogateescape"))
        part.replace(self.file(job_id, kind))

    def remember(self, entry: Entry) -> None:
        """Let another process find the job."""
        self.write(entry.job_id, "json", json.dumps(asdict(entry)))

    def entries(self) -> Iterator[Entry]:
        """All that is remembered, the oldest first."""
        for path in sorted(self.folder.glob("*.json"), key=lambda path: path.stat().st_mtime):
            yield Entry(**json.loads(path.read_text()))

    def code(self, job_id: str) -> int | None:
        """The exit code that the job left."""
        try:
            return int(self.file(job_id, "exit").read_text())
        except (OSError, ValueError):
            return None

    def forget(self, job_id: str) -> None:
        """Remove its files; without its script, a job that the scheduler requeues ends at once."""
        for kind in KINDS:
            self.file(job_id, kind).unlink(missing_ok=True)

    def process(self, entry: Entry) -> psutil.Process | None:
        """The job as a process of this machine, where it is one and lives."""
        with suppress(psutil.Error, TypeError):
            process = psutil.Process(int(entry.native_id or 0))
            if str(self.file(entry.job_id, "sh")) in process.cmdline():  # else a stranger has its number
                return process
        return None


def open_log(spec: JobSpec) -> int:
    """Note in the job's log that it is submitted; returns where its own words begin."""
    spec.log.parent.mkdir(parents=True, exist_ok=True)
    with spec.log.open("ab") as log:
        log.write(f"=== {spec.name} submitted {time.strftime('%Y-%m-%d %H:%M:%S')} ===\n".encode())
        return log.tell()


def tail(log: str, start: int, max_bytes: int) -> str:
    """The last bytes of a log, none from before ``start``; empty where there is no log."""
    try:
        with open(log, "rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(start, end - max_bytes))
            return file.read(max_bytes).decode(errors="replace")
    except FileNotFoundError:
        return ""


def end_processes(process: psutil.Process) -> None:
    """Kill a process and all that descends from it."""
    for each in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            each.kill()
