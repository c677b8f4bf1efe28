"""Jobs as processes of this machine, each the leader of a session of its own."""

import os
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass

from ..errors import LaunchError
from .base import JobSpec, JobState


@dataclass
class _Job:
    spec: JobSpec
    process: subprocess.Popen[bytes]
    log_start: int
    asked: bool = False
    swept: bool = False


class LocalLauncher:
    """Start processes here; their ids are their pids.

    A job's session makes Ctrl-C in a terminal miss it, and lets ``cancel(force=True)`` reach what it started.
    Jobs outlive this object, but only the one that submitted them can ask for them.
    """

    def __init__(self) -> None:
        self._jobs: dict[str, _Job] = {}

    def render(self, spec: JobSpec) -> str:
        """A line for a shell: directory, variables and command."""
        variables = [f"{key}={shlex.quote(value)}" for key, value in sorted(spec.env.items())]
        return f"cd {shlex.quote(str(spec.cwd))} && {' '.join((*variables, shlex.join(spec.command)))}"

    def submit(self, spec: JobSpec) -> str:
        """Start the process; its output is appended to the log, under a line that says when."""
        try:
            spec.cwd.mkdir(parents=True, exist_ok=True)
            spec.log.parent.mkdir(parents=True, exist_ok=True)
            with spec.log.open("ab") as log:
                log.write(f"=== {spec.name} started {time.strftime('%Y-%m-%d %H:%M:%S')} ===\n".encode())
                log.flush()
                start = log.tell()
                process = subprocess.Popen(
                    spec.command,
                    cwd=spec.cwd,
                    env=os.environ | dict(spec.env),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            raise LaunchError(f"{spec.name} cannot be started: {error}") from error
        job_id = str(process.pid)
        self._jobs[job_id] = _Job(spec, process, start)
        return job_id

    def state(self, job_id: str) -> JobState:
        """Where the process is; one that ended after it was asked to counts as cancelled."""
        job = self._jobs.get(job_id)
        if job is None:
            return JobState.UNKNOWN
        code = job.process.poll()
        if code is None:
            return JobState.RUNNING
        if job.asked:
            return JobState.CANCELLED
        return JobState.SUCCEEDED if code == 0 else JobState.FAILED

    def cancel(self, job_id: str, *, force: bool = False) -> None:
        """Signal the process once, or kill its process group."""
        job = self._jobs.get(job_id)
        if job is None:
            return
        running = job.process.poll() is None
        if force:
            self._kill_group(job)
        elif running and not job.asked:
            job.process.send_signal(job.spec.stop_signal)
        job.asked = job.asked or running

    def logs(self, job_id: str, max_bytes: int = 65536) -> str:
        """The end of what the process wrote; empty for an unknown id."""
        job = self._jobs.get(job_id)
        if job is None or not job.spec.log.exists():
            return ""
        with job.spec.log.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(job.log_start, end - max_bytes))
            return log.read(max_bytes).decode(errors="replace")

    def _kill_group(self, job: _Job) -> None:
        # once the leader is reaped, its number may be given to strangers: so only once after that
        if job.swept:
            return
        job.swept = job.process.poll() is not None
        try:
            os.killpg(job.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # nothing of it is left
        except PermissionError:
            job.process.kill()  # macOS says so of a group that holds only zombies
