"""Functions as Slurm jobs behind Python's own interface: an ``Executor`` whose futures know the queue.

submitit writes the script and carries function and result; where a job is comes from our own reading of the
queue, one ``squeue`` a poll for all jobs (its ``job.done()`` is wrong for requeued and for cancelled jobs).
"""

import atexit
import contextlib
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor, InvalidStateError
from concurrent.futures import wait as wait_for
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..errors import ConfigError, LaunchError
from . import job_files
from .attended import BEATS, Attended, beat, leave
from .base import JobState, JobStatus
from .slurm_future import RESULT_S, SlurmFuture, failure_of
from .slurm_queue import Run, SlurmQueue, run
from .slurm_site import SlurmOptions
from .submitted import sbatch

LOG = logging.getLogger("flwr.hpc")  # below Flower's own logger
LOOK_S = 1.0
SLOWEST_POLL_S = 30.0
KEEP = 5

T = TypeVar("T")


class SlurmExecutor(Executor):
    """Each call of :meth:`submit` is a Slurm job; making one touches no cluster.

    A thread follows the jobs, and tells them through a file that somebody waits: when this process dies, its
    queued jobs end as soon as they start, and running ones are told to stop after ``patience_s`` and killed
    after as long again. When it ends well, its jobs are cancelled.

    Parameters
    ----------
    options : SlurmOptions
        What a job asks for; ``folder`` must be shared with the nodes. Each executor makes its own in it.
    name : str
        The jobs' name; default ``flower-hpc-offload``.
    poll_s : float
        Seconds between two ``squeue``, > 0; default 5. For what waits long it grows to 30.
    patience_s : float
        Silence of this process after which it counts as dead, in seconds, > 0; default 180. More than the
        clocks of hosts differ and than file attributes are cached.
    keep : int
        How many folders of failed jobs stay, with logs and scripts, >= 0; default 5.
    env : collection of str
        Names of variables that jobs get besides a site's usual ones and ``FLOWER_HPC_...``; default none.
    run : callable
        Runs ``squeue``, ``sacct`` and ``scancel``; default the real ones.

    Raises
    ------
    ConfigError
        A value that cannot work.
    """

    def __init__(
        self,
        options: SlurmOptions,
        *,
        name: str = "flower-hpc-offload",
        poll_s: float = 5.0,
        patience_s: float = 180.0,
        keep: int = KEEP,
        env: Collection[str] = (),
        run: Run = run,
    ) -> None:
        if not re.fullmatch(r"[\w.-]+", name):
            raise ConfigError(f"name must be letters, digits, '.', '_' and '-', got {name!r}")
        for key, value in (("poll_s", poll_s), ("patience_s", patience_s)):
            if not isinstance(value, int | float) or not value > 0:
                raise ConfigError(f"{key} must be a number > 0, got {value!r}")
        self.options, self.name, self.poll_s, self.patience_s = options, name, poll_s, patience_s
        place = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self.folder = Path(options.folder).expanduser().absolute() / f"{job_files.PREFIX}{name}-{place}"
        self._keep, self._env, self._run = keep, tuple(env), run
        self._queue = SlurmQueue([name], run)
        self._jobs: dict[str, SlurmFuture[Any]] = {}
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._failed = False

    def submit(  # type: ignore[override]
        self, fn: Callable[..., T], /, *args: Any, minutes: int | None = None, **kwargs: Any
    ) -> SlurmFuture[T]:
        """Hand ``fn(*args, **kwargs)`` to Slurm.

        Parameters
        ----------
        fn : callable
            Is pickled with its arguments, by reference where it has a name.
        minutes : int, optional
            The job's time limit; default, and at most, that of the options.

        Raises
        ------
        LaunchError
            sbatch refused it.
        RuntimeError
            After :meth:`shutdown`.
        """
        with self._lock:
            if self._closing.is_set():
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._open()
            call = Attended(fn, self.folder, self.patience_s)
            limit = min(minutes or self.options.minutes, self.options.minutes)
            job_id = sbatch(self.folder, self.options, self.name, limit, self._env, call, args, kwargs)
            future: SlurmFuture[T] = SlurmFuture(job_id, self._scancel)
            self._jobs[job_id] = future
        LOG.info("%s (%s) was submitted", future.job, self.name)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work; unless ``wait``, or with ``cancel_futures``, jobs are cancelled."""
        with self._lock:
            futures = list(self._jobs.values())
        if cancel_futures or not wait:
            for future in futures:
                future.cancel()
        elif futures:
            wait_for(futures)
        self._closing.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        atexit.unregister(self._at_exit)
        if self.folder.exists():
            leave(self.folder)
            job_files.tidy([self.folder], keep=int(self._failed and self._keep > 0))

    def _at_exit(self) -> None:
        self.shutdown(wait=False)

    def _open(self) -> None:
        if self._thread is not None:
            return
        self._sweep()
        try:
            self.folder.mkdir(parents=True, mode=0o700)  # what lies there is unpickled
            beat(self.folder)
        except OSError as error:
            raise LaunchError(f"no folder for jobs: {error}") from error
        atexit.register(self._at_exit)
        self._thread = threading.Thread(target=self._follow, name="slurm-jobs", daemon=True)
        self._thread.start()

    def _sweep(self) -> None:
        """End and remove what processes left that were killed."""
        gone = job_files.abandoned(self.folder.parent, self.patience_s)
        if ids := [job for folder in gone for job in job_files.jobs_left(folder)]:
            self._scancel(*ids)
        for folder in gone:
            leave(folder)
        job_files.tidy(gone, self._keep)

    def _scancel(self, *ids: str) -> None:
        try:
            # by name too: ids are given anew when a cluster is set up anew
            self._run(["scancel", "-Q", "--name", self.name, *ids])
        except LaunchError as error:  # nothing to cancel is an error to some releases
            LOG.debug("%s", error)

    def _follow(self) -> None:
        polled = beaten = time.monotonic()
        while not self._closing.wait(min(LOOK_S, self.poll_s)):
            now = time.monotonic()
            if now - beaten >= self.patience_s / BEATS:
                beaten = now
                with contextlib.suppress(OSError):
                    beat(self.folder)
            with self._lock:
                jobs = dict(self._jobs)
            self._collect(jobs)
            if now - polled >= self._pause(jobs.values(), now):
                polled = now
                self._poll(jobs)

    def _pause(self, futures: Collection[SlurmFuture[Any]], now: float) -> float:
        youngest = min((now - future.submitted for future in futures), default=0.0)
        return max(self.poll_s, min(SLOWEST_POLL_S, youngest / 60))

    def _collect(self, jobs: dict[str, SlurmFuture[Any]]) -> None:
        for job_id in job_files.finished(self.folder) & jobs.keys():
            future = jobs.pop(job_id)
            good = future.settle(partial(job_files.read_result, self.folder, job_id))
            self._forget(job_id, failed=not good and not future.cancelled())

    def _poll(self, jobs: dict[str, SlurmFuture[Any]]) -> None:
        try:
            seen = self._queue.poll(list(jobs))
        except LaunchError as error:  # nothing is known, and nothing follows from that
            LOG.warning("%s", error)
            return
        for job_id, status in seen.items():
            self._learn(jobs[job_id], status)

    def _learn(self, future: SlurmFuture[Any], status: JobStatus) -> None:
        future.reason = status.reason
        if future.cancelled():
            return self._forget(future.job_id)
        if not status.state.final:
            if status.state is JobState.RUNNING and not future.running():
                with contextlib.suppress(InvalidStateError, RuntimeError):
                    future.set_running_or_notify_cancel()
            return None
        now = time.monotonic()
        future.ended = future.ended or now
        # what it wrote may be seen here only later
        if status.state is JobState.SUCCEEDED and now - future.ended < RESULT_S:
            return None
        if status.refused:
            self._scancel(future.job_id)
        failure = failure_of(future.job, status, job_files.last_line(self.folder, future.job_id))
        with contextlib.suppress(InvalidStateError):
            future.set_exception(failure)
        return self._forget(future.job_id, failed=True)

    def _forget(self, job_id: str, failed: bool = False) -> None:
        with self._lock:
            self._jobs.pop(job_id, None)
        self._failed |= failed
        job_files.remove(self.folder, job_id, logs=not failed)


def from_settings(settings: Mapping[str, Any]) -> SlurmExecutor:
    """Make one of plain values, as ``$FLOWER_HPC_OFFLOAD`` holds them.

    Parameters
    ----------
    settings : mapping
        Fields of SlurmOptions, and ``name``, ``poll_s``, ``patience_s``, ``keep``, ``env`` of SlurmExecutor.

    Raises
    ------
    ConfigError
        An unknown name, or a value that cannot work.
    """
    given = {key: value for key, value in settings.items() if key != "executor"}
    own = {k: given.pop(k) for k in ("name", "poll_s", "patience_s", "keep", "env") if k in given}
    known = {f.name for f in fields(SlurmOptions)}
    if unknown := sorted(given.keys() - known):
        raise ConfigError(f"unknown setting {unknown[0]!r}; known: {', '.join(sorted(known))}")
    if "folder" not in given:
        raise ConfigError("folder must be given: one that login and compute nodes share")
    given["folder"] = Path(given["folder"])
    if "setup" in given:
        given["setup"] = tuple(given["setup"])
    return SlurmExecutor(SlurmOptions(**given), **own)
