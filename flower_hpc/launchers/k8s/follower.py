"""Follows the Jobs of one process: one watch of their pods tells why each waits, and which is lost."""

import contextlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import InvalidStateError
from dataclasses import dataclass
from typing import Any

from ...clock import WALL
from ...errors import JobFailed, LaunchError
from ..job_future import JobFuture
from . import job_state, state
from .api import Api
from .connect import ClusterError
from .job import CONTAINER, JOB
from .place import Manifest
from .pods import Pods

log = logging.getLogger("flwr.hpc")  # below Flower's own logger

LOOK_S, ASK_S, AGAIN_S = 1.0, 15.0, 10.0
LOG_BYTES = 8192


@dataclass
class _Followed:
    future: JobFuture[Any]
    asked: float
    """When the cluster was asked about the Job itself."""
    pod: Manifest | None = None


class Follower:
    """Ends futures whose pods end without a result; deletes the Jobs of those that are done.

    Parameters
    ----------
    api : Api
        Of the Jobs' namespace.
    selector : str
        Their pods' labels.
    forget : callable
        Called with the name of each Job that is over.
    """

    def __init__(self, api: Api, selector: str, forget: Callable[[str], None]) -> None:
        self._api, self._forget = api, forget
        self._wake, self._over = threading.Event(), threading.Event()
        self._pods = Pods(api, selector, self._wake)
        self._followed: dict[str, _Followed] = {}
        self._late: dict[str, float] = {}
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="kubernetes-jobs", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._pods.start()
        self._thread.start()

    def follow(self, future: JobFuture[Any]) -> None:
        """From now on; its Job has been made."""
        with self._lock:
            self._followed[future.job_id] = _Followed(future, WALL.now())
        future.add_done_callback(lambda _: self._wake.set())

    def futures(self) -> list[JobFuture[Any]]:
        """Those that are not over."""
        with self._lock:
            return [each.future for each in self._followed.values()]

    def delete_later(self, name: str) -> None:
        """Try again to delete a Job, now and then."""
        with self._lock:
            self._late[name] = WALL.now()

    def close(self) -> None:
        """Look once more, and end."""
        self._over.set()
        self._wake.set()
        self._thread.join()
        self._pods.close()

    def _work(self) -> None:
        while not self._over.is_set():
            self._wake.wait(LOOK_S)
            self._wake.clear()
            self._step()
        self._step()

    def _step(self) -> None:
        with self._lock:
            followed = dict(self._followed)
            late = [name for name, since in self._late.items() if WALL.now() - since > AGAIN_S]
        pods = {pod["metadata"]["labels"].get(JOB): pod for pod in self._pods.now().values()}
        for name, one in followed.items():
            try:
                if not one.future.done():
                    self._look(name, one, pods.get(name))
                if one.future.done():
                    self._drop(name, one)
            except LaunchError as error:  # nothing is known, and nothing follows from that
                one.future.reason = str(error)
            except Exception:  # a thread that dies would leave every future as it is for ever
                log.exception("%s: it could not be looked at", one.future.job)
        for name in late:
            with contextlib.suppress(LaunchError):
                self._delete(name)

    def _look(self, name: str, one: _Followed, pod: Manifest | None) -> None:
        if pod is not None:
            one.pod = pod
            if job_state.is_over(pod):
                return self._fail(one, self._why_ended(name, one, pod))
            status = state.read(pod)
            if status.refused:
                return self._fail(one, job_state.failure_of_pod(one.future.job, pod))
            one.future.reason = status.reason or (
                "" if one.future.running() else "its pod runs, and has not called back yet"
            )
        elif one.pod is not None:
            return self._fail(one, job_state.failure_of_gone(one.future.job, self._job(name), one.pod))
        elif WALL.now() - one.asked > ASK_S:
            one.asked = WALL.now()
            self._look_without_pod(name, one)
        return None

    def _why_ended(self, name: str, one: _Followed, pod: Manifest) -> JobFailed:
        if job_state.was_sent_away(pod):
            return job_state.failure_of_gone(one.future.job, self._job(name), pod)
        failure = job_state.failure_of_pod(one.future.job, pod)
        with contextlib.suppress(LaunchError):  # for this host's log; it goes with the Job
            failure.add_note(self._api.log(pod["metadata"]["name"], CONTAINER, LOG_BYTES))
        return failure

    def _look_without_pod(self, name: str, one: _Followed) -> None:
        made = self._job(name)
        if made is None or job_state.has_failed(made):
            return self._fail(one, job_state.failure_of_gone(one.future.job, made, None))
        found = self._api.list("Event", fields=f"involvedObject.name={name},reason=FailedCreate")["items"]
        newest = sorted(found, key=lambda each: str(each.get("lastTimestamp") or ""))[-1:]
        trouble = str(self._pods.trouble) or "its pod is not made yet"
        one.future.reason = state.short(str(newest[0].get("message", ""))) if newest else trouble
        return None

    def _job(self, name: str) -> Manifest | None:
        try:
            return self._api.get("Job", name)
        except ClusterError as error:
            if error.status == 404:
                return None
            raise

    def _fail(self, one: _Followed, failure: JobFailed) -> None:
        with contextlib.suppress(InvalidStateError):
            one.future.set_exception(failure)

    def _drop(self, name: str, one: _Followed) -> None:
        self._forget(name)
        with self._lock:
            self._followed.pop(name, None)
        if one.future.cancelled():
            return  # whoever cancelled it has deleted the Job
        self.delete_later(name)
        self._delete(name)

    def _delete(self, name: str) -> None:
        self._api.delete("Job", name)
        with self._lock:
            self._late.pop(name, None)
