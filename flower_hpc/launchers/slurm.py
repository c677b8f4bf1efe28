"""SuperNodes as Slurm jobs, through submitit.

One thread a site (:mod:`.poller`) hands jobs over and looks at them: what is submitted together becomes one
job array, and one ``squeue`` a poll tells of them all.
"""

import logging
import secrets
import threading
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ..errors import LaunchError
from .base import Found, JobSpec, JobState, JobStatus
from .memory import Memory, Record
from .pilot import Pilot
from .poller import POLL_S, Poller
from .slurm_queue import STATES, Run, SlurmQueue, kill_wait_s, run
from .slurm_site import SlurmOptions
from .slurm_submit import files_of, remove_files, script, submit
from .supernode_log import since_last_start
from .tail import tail

log = logging.getLogger(__name__)


class SlurmLauncher:
    """Nodes of one site as jobs of one Slurm cluster.

    Parameters
    ----------
    options : SlurmOptions
        What the site asks for.
    job_name : str
        Of all its jobs; no other launcher may have it.
    memory : Path
        File that remembers the jobs, for the launcher that comes after a killed one.
    poll_s : float
        Seconds between two looks; default 10. After a change they are 2 s apart for a minute.
    run : callable
        Runs Slurm's commands; default :func:`flower_hpc.launchers.slurm_queue.run`.
    """

    def __init__(
        self,
        options: SlurmOptions,
        *,
        job_name: str,
        memory: Path,
        poll_s: float = POLL_S,
        run: Run = run,
    ) -> None:
        self.options, self.job_name = options, job_name
        self.poller = Poller(job_name, self._step, poll_s)
        self.queue = SlurmQueue((job_name,), run)
        self._run, self._memory = run, Memory(memory)
        self._status: dict[str, JobStatus] = {}
        self._waiting: dict[str, JobSpec] = {}
        self._to_cancel: set[str] = set()
        self._asked: set[str] = set()
        self._stuck: set[str] = set()
        self._lock = threading.Lock()
        self._kill_wait_s: float | None = None

    @property
    def trouble(self) -> str:
        """Why nothing is known of the jobs at present; empty where all is well."""
        return self.poller.trouble

    # -- what the controller calls; none of it waits -------------------------------------------------

    def render(self, spec: JobSpec) -> str:
        """The sbatch file."""
        return script(self.options, self.job_name, self._pilot(spec))

    def submit(self, spec: JobSpec) -> str:
        """Have the job handed over; what is submitted before the thread comes to it becomes one job array."""
        with self._lock:
            ticket = f"{spec.name}.{secrets.token_hex(4)}"
            self._memory.note(ticket, spec)
            self._waiting[ticket] = spec
            self._status[ticket] = JobStatus(JobState.PENDING, "being submitted")
        self.poller.hurry()
        return ticket

    def status(self, job_id: str) -> JobStatus:
        """Where the job was at the last look."""
        with self._lock:
            return self._status.get(job_id, JobStatus(JobState.UNKNOWN))

    def cancel(self, job_id: str, *, force: bool = False) -> None:
        """``scancel`` it: its pilot has the work handed in, and Slurm kills it after ``KillWait`` seconds."""
        with self._lock:
            status = self._status.get(job_id)
            if status is None:
                return
            if self._waiting.pop(job_id, None) is not None:
                self._status[job_id] = JobStatus(JobState.CANCELLED, "before it was submitted")
            elif status.state.final:
                record = self._memory.forget(job_id)
                if record is not None and status.refused and record.job:
                    self._stuck.add(record.job)  # it pends for ever
                if record is not None:
                    if status.state is not JobState.SUCCEEDED:
                        self._keep_words(record)
                    remove_files(self.options.folder, record.job)
            elif job_id not in self._asked:
                self._asked.add(job_id)
                self._to_cancel.add(job_id)
        self.poller.hurry()

    def _keep_words(self, record: Record) -> None:
        # `logs` shows the node's own log: what Slurm wrote of a job that came not so far belongs there too
        words = tail(files_of(self.options.folder, record.job)[0], 16384) if record.job else ""
        with suppress(OSError), record.log.open("a", encoding="utf-8") as log:
            log.write(f"--- what Slurm wrote of job {record.job} ---\n{words}" if words else "")

    def logs(self, job_id: str, max_bytes: int = 65536) -> str:
        """What its last start wrote, and what Slurm wrote down where it failed or came not so far."""
        record = self._memory.get(job_id)
        if record is None:
            return ""
        text = since_last_start(tail(record.log, max_bytes, record.log_start))
        state = self.status(job_id).state
        failed = state.final and state is not JobState.SUCCEEDED
        if record.job and (failed or not text.strip()):
            text += tail(files_of(self.options.folder, record.job)[0], max_bytes)
        return text

    def adopt(self) -> Mapping[str, Found]:
        """Jobs that an earlier launcher submitted; jobs of this name that it did not note are cancelled."""
        known = self._memory.records()
        try:
            listed = self.queue.listed()
            statuses = self.queue.poll([record.job for record in known.values() if record.job])
            alive = [
                job for job, (word, *_) in listed.items() if not STATES.get(word, JobState.UNKNOWN).final
            ]
            if strays := set(alive) - {record.job for record in known.values()}:
                self._scancel(sorted(strays))
        except LaunchError as error:  # nothing is known: all may live
            self.poller.trouble, statuses = str(error), {}
        found = {}
        for ticket, record in known.items():
            status = statuses.get(record.job, JobStatus(JobState.PENDING, "seen before"))
            if not record.job or status.state.final:
                self._memory.forget(ticket)
            else:
                self._status[ticket] = replace(status, job=record.job)
                found[record.name] = Found(ticket, record.fingerprint)
        if found:
            self.poller.hurry()
        return found

    def close(self) -> None:
        """End the thread; jobs go on."""
        self.poller.close()

    def step(self) -> None:
        """Cancel, submit and look once."""
        self.poller.look()

    # -- the thread ----------------------------------------------------------------------------------

    def _step(self) -> None:
        self._cancel_asked()
        self._submit_waiting()
        self._look()

    def _cancel_asked(self) -> None:
        with self._lock:
            tickets, self._to_cancel = self._to_cancel, set()
            jobs = [job for ticket in tickets if (job := self._job_of(ticket))] + sorted(self._stuck)
        if jobs:
            try:
                self._scancel(jobs)
                self._stuck.clear()
            except LaunchError:
                with self._lock:
                    self._to_cancel |= tickets
                raise

    def _scancel(self, jobs: Collection[str]) -> None:
        self._run(("scancel", "-Q", *jobs))

    def _submit_waiting(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        if not waiting:
            return
        pilots = [self._pilot(spec) for spec in waiting.values()]
        try:
            jobs = submit(self.options, self.job_name, pilots)
        except LaunchError as error:
            with self._lock:
                for ticket in waiting:
                    self._memory.forget(ticket)
                    self._status[ticket] = JobStatus(JobState.FAILED, str(error), refused=True)
            return
        with self._lock:
            for ticket, job in zip(waiting, jobs, strict=True):
                self._memory.name_job(ticket, job)
                self._status[ticket] = JobStatus(JobState.PENDING, "submitted", job=job)
        log.info("%s: submitted %s", self.job_name, ", ".join(jobs))

    def _pilot(self, spec: JobSpec) -> Pilot:
        if self._kill_wait_s is None:
            self._kill_wait_s = kill_wait_s(self._run)
        return Pilot(spec, kill_wait_s=self._kill_wait_s, lead_s=self.options.signal_s)

    def _look(self) -> None:
        with self._lock:
            watched = {
                job: ticket
                for ticket, status in self._status.items()
                if not status.state.final and (job := self._job_of(ticket))
            }
        found = self.queue.poll(watched)
        with self._lock:
            for job, status in found.items():
                old = self._status[watched[job]]
                if status.state is not old.state:
                    self.poller.changed()
                if status.state is JobState.PENDING:
                    self._memory.restarts(watched[job])
                self._status[watched[job]] = replace(status, job=job)

    def _job_of(self, ticket: str) -> str:
        record = self._memory.get(ticket)
        return record.job if record is not None else ""
