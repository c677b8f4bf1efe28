"""The folder of a PSI/J launcher: scripts that jobs run, the exit codes that they leave, their processes."""

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from .base import JobSpec

STOPS_WITHIN_S = 1.0


@dataclass(frozen=True)
class JobFiles:
    """Files by ticket: a job's script ``sh`` and its exit code ``exit``."""

    folder: Path

    def script(self, ticket: str) -> Path:
        """What the job runs; it need not be there."""
        return self.folder / f"{ticket}.sh"

    def exit(self, ticket: str) -> Path:
        """Where the job leaves its exit code."""
        return self.folder / f"{ticket}.exit"

    def write(self, ticket: str, text: str) -> None:
        """Write the job's script; OSError where it cannot."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.script(ticket)
        # it holds the job's variables, and secrets may be among them
        with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(text.encode(errors="surrogateescape"))

    def code(self, ticket: str) -> int | None:
        """The exit code that the job left."""
        try:
            return int(self.exit(ticket).read_text())
        except (OSError, ValueError):
            return None

    def remove(self, ticket: str) -> None:
        """Remove both; without its script, a job that the scheduler requeues ends at once."""
        self.script(ticket).unlink(missing_ok=True)
        self.exit(ticket).unlink(missing_ok=True)

    def process(self, ticket: str, job: str) -> psutil.Process | None:
        """The job as a process of this machine, where its id is that of one which lives."""
        with suppress(psutil.Error, ValueError):
            process = psutil.Process(int(job))
            if str(self.script(ticket)) in process.cmdline():  # else a stranger has its number
                return process
        return None


def open_log(spec: JobSpec) -> int:
    """Note in the job's log that it is submitted; returns where its own words begin."""
    spec.log.parent.mkdir(parents=True, exist_ok=True)
    with spec.log.open("ab") as log:
        log.write(f"=== {spec.name} submitted {time.strftime('%Y-%m-%d %H:%M:%S')} ===\n".encode())
        return log.tell()


def end_processes(process: psutil.Process) -> None:
    """Kill a process and all that descends from it."""
    with suppress(psutil.NoSuchProcess):
        _halt(process)
        for child in process.children():
            end_processes(child)
        process.kill()


def _halt(process: psutil.Process) -> None:
    # what runs on may start another process while its children are counted
    process.suspend()
    until = time.monotonic() + STOPS_WITHIN_S
    halted = (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_TRACING_STOP)
    while process.status() not in halted and time.monotonic() < until:
        time.sleep(0.002)
