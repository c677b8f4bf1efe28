"""Jobs as processes of this machine, each the leader of a session of its own."""

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from ..errors import LaunchError
from ..process import created, find
from .base import Found, JobSpec, JobState, JobStatus
from .filling import fill, with_programs
from .memory import Memory
from .tail import tail


@dataclass
class _Job:
    stop_signal: signal.Signals
    process: "subprocess.Popen[bytes] | psutil.Process"
    asked: bool = False
    swept: bool = False


class LocalLauncher:
    """Start processes here; their ids are their pids.

    A job's session makes Ctrl-C in a terminal miss it, and lets ``cancel(force=True)`` reach what it started.

    Parameters
    ----------
    memory : Path, optional
        File that remembers the processes, for the launcher that comes after a killed one; default: none does.
    """

    def __init__(self, memory: Path | None = None) -> None:
        self._jobs: dict[str, _Job] = {}
        self._memory = Memory(memory)
        self._taken: set[int] = set()

    def render(self, spec: JobSpec) -> str:
        """A line for a shell: directory, variables and command."""
        variables = [f"{key}={shlex.quote(value)}" for key, value in sorted(spec.env.items())]
        return f"cd {shlex.quote(str(spec.cwd))} && {' '.join((*variables, shlex.join(spec.command)))}"

    def submit(self, spec: JobSpec) -> str:
        """Start the process; its output is appended to the log, under a line that says when."""
        command = fill(spec, self._taken)
        try:
            spec.cwd.mkdir(parents=True, exist_ok=True)
            spec.log.parent.mkdir(parents=True, exist_ok=True)
            with spec.log.open("ab") as log:
                log.write(f"=== {spec.name} started {time.strftime('%Y-%m-%d %H:%M:%S')} ===\n".encode())
                log.flush()
                process = subprocess.Popen(
                    command,
                    cwd=spec.cwd,
                    env=with_programs(os.environ | dict(spec.env)),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                job_id = str(process.pid)
                self._memory.note(job_id, spec, log_start=log.tell(), created=created(process.pid))
        except OSError as error:
            raise LaunchError(f"{spec.name} cannot be started: {error}") from error
        self._jobs[job_id] = _Job(spec.stop_signal, process)
        return job_id

    def status(self, job_id: str) -> JobStatus:
        """Where the process is; one that ended after it was asked to counts as cancelled."""
        job = self._jobs.get(job_id)
        if job is None:
            return JobStatus(JobState.UNKNOWN)
        if _runs(job.process):
            return JobStatus(JobState.RUNNING, pid=job.process.pid, job=job_id)
        code = job.process.returncode if isinstance(job.process, subprocess.Popen) else None
        if job.asked:
            return JobStatus(JobState.CANCELLED, job=job_id)
        if code is None:
            return JobStatus(JobState.FAILED, "it ended", job=job_id)
        words = f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
        return JobStatus(JobState.FAILED if code else JobState.SUCCEEDED, words if code else "", job=job_id)

    def cancel(self, job_id: str, *, force: bool = False) -> None:
        """Signal the process once, or kill its process group."""
        job = self._jobs.get(job_id)
        if job is None:
            return
        running = _runs(job.process)
        if force:
            self._kill_group(job)
            if not running:
                self._memory.forget(job_id)
        elif running and not job.asked:
            job.process.send_signal(job.stop_signal)
        job.asked = job.asked or running

    def logs(self, job_id: str, max_bytes: int = 65536) -> str:
        """The end of what the process wrote; empty for an unknown id."""
        record = self._memory.get(job_id)
        return "" if record is None else tail(record.log, max_bytes, record.log_start)

    def adopt(self) -> Mapping[str, Found]:
        """Processes that an earlier launcher started; their exit codes will not be known."""
        found = {}
        for job_id, record in self._memory.records().items():
            process = find(int(job_id), record.created)
            if process is None:
                self._memory.forget(job_id)
                continue
            self._jobs[job_id] = _Job(signal.Signals(record.stop_signal), process)
            found[record.name] = Found(job_id, record.fingerprint)
        return found

    def close(self) -> None:
        """Nothing is held."""

    def _kill_group(self, job: _Job) -> None:
        # once the leader is reaped, its number may be given to strangers: so only once after that
        if job.swept:
            return
        job.swept = not _runs(job.process)
        try:
            os.killpg(job.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # nothing of it is left
        except PermissionError:
            job.process.kill()  # macOS says so of a group that holds only zombies


def _runs(process: "subprocess.Popen[bytes] | psutil.Process") -> bool:
    if isinstance(process, subprocess.Popen):
        return process.poll() is None
    with suppress(psutil.NoSuchProcess):  # is_running() knows a number that was given again
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
