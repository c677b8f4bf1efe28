"""Jobs of PBS, LSF, Flux and others through PSI/J's one interface (https://exaworks.org/psij-python)."""

import importlib.util
import logging
import queue
import secrets
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from ..errors import ConfigError, LaunchError
from .base import Found, JobSpec, JobState, JobStatus
from .memory import Memory, Record
from .psij_files import JobFiles, end_processes, open_log
from .psij_job import NOT_ASKED, TRANSIENT, PsijOptions, one_line, plain, read_status, request, script
from .tail import tail

if TYPE_CHECKING:
    import psij

MEMORY = "jobs.json"
CLOSE_S = 30.0
FIRST_POLL_S = 1


@dataclass
class _Job:
    ticket: str
    record: Record
    native: "psij.Job | None" = None
    asked: bool = False
    trouble: str = ""
    end: JobStatus | None = None


class PsijLauncher:
    """Hand jobs to a batch system through PSI/J; their ids are ours, as theirs are known only later.

    PSI/J's calls run the scheduler's commands and wait for them, so one thread of this object makes them
    all: what the scheduler refused is told by :meth:`status`.

    PSI/J can only cancel: ``stop_signal`` is not sent, and ``force`` only asks again. On Slurm, PBS and LSF
    that is TERM and, after the scheduler's own grace, KILL; on ``local`` it is KILL at once. A SuperNode may
    so end without signing off, and its SuperLink then believes in it for a minute.

    PSI/J takes jobs that it sees preempted, or whose node failed, for ended, and so does this: whoever
    started such a job starts another. Where the scheduler requeues the first, that one ends at once, as its
    script is gone. A requeue between two of PSI/J's questions goes unseen: the job counts as running while
    it waits again.

    PSI/J tells no reason for which a job waits, so neither does this: one that waits for ever does so
    silently.

    Parameters
    ----------
    options : PsijOptions
        The scheduler, what a job asks of it, and the folder that remembers what was started.

    Raises
    ------
    ConfigError
        PSI/J is not installed.
    """

    def __init__(self, options: PsijOptions) -> None:
        if importlib.util.find_spec("psij") is None:
            raise ConfigError("this launcher needs PSI/J: pip install 'flower-hpc[psij]'")
        self.options = options
        self._files = JobFiles(options.folder)
        self._memory = Memory(options.folder / MEMORY)
        self._lock = threading.Lock()
        self._jobs: dict[str, _Job] = {}
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._executor: psij.JobExecutor | None = None

    def render(self, spec: JobSpec) -> str:
        """What is asked for, and the script that would run on a node."""
        asked = {key: value for key, value in vars(self.options).items() if value and key != "setup"}
        first = ", ".join(f"{key}={value}" for key, value in asked.items())
        return f"# {first}\n{script(spec, self.options, self._files.exit('JOB'))}"

    def submit(self, spec: JobSpec) -> str:
        """Write the job's script and have it handed over; its output is appended to the log."""
        ticket = f"{plain(spec.name)}.{secrets.token_hex(4)}"
        text = script(spec, self.options, self._files.exit(ticket))
        try:
            start = open_log(spec)
            self._files.write(ticket, text)
            with self._lock:
                self._memory.note(ticket, spec, log_start=start)
                job = _Job(ticket, self._memory.records()[ticket])
        except OSError as error:
            raise LaunchError(f"{spec.name} cannot be started: {error}") from error
        self._jobs[ticket] = job
        self._call(partial(self._hand_over, job))
        return ticket

    def status(self, job_id: str) -> JobStatus:
        """Where the job was when the scheduler was last asked; an exit code that it left is known sooner."""
        job = self._jobs.get(job_id)
        if job is None:
            return JobStatus(JobState.UNKNOWN)
        if job.end is not None:
            return job.end
        status = self._look(job)
        if status.state.final:
            self._end(job, status)
        return status

    def cancel(self, job_id: str, *, force: bool = False) -> None:
        """Have the scheduler end the job; with ``force``, even if it was told to before."""
        job = self._jobs.get(job_id)
        if job is None or self.status(job_id).state.final or (job.asked and not force):
            return
        job.asked = True
        self._call(partial(self._cancel, job))

    def logs(self, job_id: str, max_bytes: int = 65536) -> str:
        """The end of what the job wrote; empty for an unknown id."""
        job = self._jobs.get(job_id)
        return tail(job.record.log, max_bytes, job.record.log_start) if job else ""

    def adopt(self) -> Mapping[str, Found]:
        """What the folder remembers and what left no exit code.

        A batch job that was killed meanwhile is among them: the first answer of the scheduler tells.
        """
        found = {}
        for ticket, record in self._memory.records().items():
            if ticket in self._jobs:
                continue
            if self._ended(ticket, record):
                self._forget(ticket)
                continue
            self._jobs[ticket] = job = _Job(ticket, record)
            self._call(partial(self._attach, job))
            found[record.name] = Found(ticket, record.fingerprint)
        return found

    def close(self) -> None:
        """Wait for the calls that are under way, half a minute at most, and let go; jobs go on."""
        if self._thread is not None:
            self._calls.put(None)
            self._thread.join(CLOSE_S)
            self._thread = self._executor = None

    @property
    def _is_local(self) -> bool:
        return self.options.executor == "local"

    def _look(self, job: _Job) -> JobStatus:
        if job.native is None:
            return NOT_ASKED
        told = job.native.status
        code = self._files.code(job.ticket)
        if code is None and not self._is_local:  # of a local job that was found again, PSI/J makes up a 0
            code = told.exit_code
        status = read_status(told, code, job.asked)
        pid = int(job.record.job) if self._is_local and not status.state.final else None
        return replace(status, reason=status.reason or job.trouble, job=job.record.job, pid=pid)

    def _ended(self, ticket: str, record: Record) -> bool:
        if not record.job or self._files.code(ticket) is not None:
            return True
        return self._is_local and self._files.process(ticket, record.job) is None

    def _end(self, job: _Job, status: JobStatus) -> None:
        job.end = status
        self._forget(job.ticket)

    def _forget(self, ticket: str) -> None:
        self._files.remove(ticket)
        with self._lock:
            self._memory.forget(ticket)

    def _call(self, call: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="psij", daemon=True)
            self._thread.start()
        self._calls.put(call)

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    # what follows runs in the thread

    def _hand_over(self, job: _Job) -> None:
        try:
            with _in_one_line(f"{self.options.executor} did not take {job.record.name}"):
                native = self._submitted(job)
                job.record = replace(job.record, job=native.native_id or "")
                with self._lock:
                    self._memory.name_job(job.ticket, job.record.job)
                job.native = native  # the last, as status() may forget the job from here on
        except LaunchError as error:
            refused = TRANSIENT.search(str(error)) is None
            self._end(job, JobStatus(JobState.FAILED, str(error), refused=refused))

    def _submitted(self, job: _Job) -> "psij.Job":
        executor, native = self._psij(), self._described(job)
        executor.submit(native)
        native.wait(target_states=[type(native.status.state).QUEUED])  # Flux tells its id only then
        return native

    def _attach(self, job: _Job) -> None:
        try:
            with _in_one_line(f"{job.record.name} cannot be found again"):
                executor, native = self._psij(), self._described(job)
                executor.attach(native, job.record.job)
                job.native = native
        except LaunchError as error:
            self._end(job, JobStatus(JobState.FAILED, str(error)))

    def _cancel(self, job: _Job) -> None:
        try:
            with _in_one_line(f"{job.record.name} cannot be cancelled"):
                # PSI/J's own way says CANCELED before a process ends, and fails for ever on one found again
                process = self._files.process(job.ticket, job.record.job) if self._is_local else None
                if process is not None:
                    end_processes(process)
                elif job.native is not None and not self._is_local:
                    job.native.cancel()
        except LaunchError as error:
            job.asked, job.trouble = False, str(error)

    def _described(self, job: _Job) -> "psij.Job":
        import psij

        return psij.Job(request(job.record.name, self._files.script(job.ticket), self.options))

    def _psij(self) -> "psij.JobExecutor":
        if self._executor is None:
            # imported by the main thread it takes over SIGCHLD, and elsewhere it complains that it cannot
            logging.getLogger("psij.executors.local").addFilter(_not_about_signals)
            import psij
            from psij.executors.batch.batch_scheduler_executor import BatchSchedulerExecutorConfig

            config = BatchSchedulerExecutorConfig(
                work_directory=self.options.folder / "psij",
                queue_polling_interval=self.options.poll_s,
                initial_queue_polling_delay=FIRST_POLL_S,
                # else three failed questions in a row make all jobs count as failed while they go on
                queue_polling_error_threshold=sys.maxsize,
            )
            self._executor = psij.JobExecutor.get_instance(self.options.executor, config=config)
        return self._executor


@contextmanager
def _in_one_line(what: str) -> Iterator[None]:
    """PSI/J's errors in ours: it lets pass whatever commands, parsers and Flux raise."""
    try:
        yield
    except Exception as error:
        cause = getattr(error, "exception", None) or error.__cause__
        words = (str(getattr(error, "message", "") or error), str(cause or ""))
        raise LaunchError(f"{what}: {one_line(chr(10).join(words)) or type(error).__name__}") from error


def _not_about_signals(record: logging.LogRecord) -> bool:
    return "imported from a non-main thread" not in record.getMessage()
