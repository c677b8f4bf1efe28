"""Reads a site's pods for the nodes in them: which start is whose, and what became of it."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from ..base import JobState, JobStatus
from . import state
from .place import Manifest
from .tickets import Ticket

MISSING_S, ASK_S = 5.0, 15.0
STAYS_S = 1.0
"""That a pod has started anew is told so long, however soon it runs."""
WAITS = JobStatus(JobState.PENDING, "waits for its predecessor to leave")


class Reader:
    """Sets the tickets' states.

    Parameters
    ----------
    name : str
        Of the StatefulSet; pods add their number.
    why_missing : callable
        Asked, now and then, why a pod is not made.
    """

    def __init__(self, name: str, why_missing: Callable[[], str]) -> None:
        self._name, self._why_missing = name, why_missing
        self._prints: dict[str, str] = {}
        self._former: dict[str, str] = {}
        self._ends: Mapping[str, JobStatus] = {}
        self._asked, self._why, self._missing = -1e9, "", False

    def expect(self, prints: Mapping[str, str]) -> None:
        """How pods, by name, were started that an earlier launcher had made."""
        self._former.update(prints)

    def read(
        self,
        tickets: Iterable[Ticket],
        pods: Mapping[str, Manifest],
        now: float,
        ends: Mapping[str, JobStatus] = MappingProxyType({}),
    ) -> bool:
        """Look at all of them; whether some have long had no pod, said once in a while.

        ``ends`` says of pods, by uid, why they ended, though their successors may be seen by now.
        """
        self._ends = ends
        for name, pod in pods.items():
            if name in self._former:
                self._prints[pod["metadata"]["uid"]] = self._former[name]
        self._former = {}
        alive = {pod["metadata"]["uid"] for pod in pods.values()}
        self._prints = {uid: known for uid, known in self._prints.items() if uid in alive}
        for one in tickets:
            if one.applied and not one.status.state.final and now >= one.told_until:
                one.status = self._look(one, pods.get(f"{self._name}-{one.ordinal}"), now)
        missing, self._missing = self._missing, False
        return missing

    def _look(self, one: Ticket, pod: Manifest | None, now: float) -> JobStatus:
        if pod is None:
            return self._without_pod(one, now)
        leaving = "deletionTimestamp" in pod["metadata"]
        if leaving and (one.life is None or one.life[0] != pod["metadata"]["uid"]):
            return WAITS
        if self._prints.setdefault(pod["metadata"]["uid"], one.spec.fingerprint) != one.spec.fingerprint:
            one.replaces = "" if leaving else pod["metadata"]["uid"]
            return WAITS
        found, old, one.life = state.read(pod), one.life, state.life(pod)
        if leaving:
            one.parting = found.reason
        if old is None or old == one.life:
            return found
        self._recall(one, old[0])
        return self._began_anew(one, found, how_it_ended(one, pod, same_pod=old[0] == one.life[0]), now)

    def _began_anew(self, one: Ticket, found: JobStatus, ended: JobStatus, now: float) -> JobStatus:
        one.parting = ""
        one.told_until = now + STAYS_S
        return found if found.state.final else ended

    def _recall(self, one: Ticket, uid: str) -> None:
        known = self._ends.get(uid)
        if known is not None and known.reason and not one.parting:
            one.parting = known.reason

    def _without_pod(self, one: Ticket, now: float) -> JobStatus:
        if one.life is not None:
            self._recall(one, one.life[0])
            words = one.parting or "its pod is gone"
            one.life, one.parting, one.since = None, "", now
            one.told_until = now + STAYS_S
            return JobStatus(JobState.PENDING, words, ended=JobState.PREEMPTED)
        if now - one.since < MISSING_S:
            return JobStatus(JobState.PENDING, "submitted")
        if now - self._asked > ASK_S:
            self._asked, self._why, self._missing = now, self._why_missing(), True
        return JobStatus(JobState.PENDING, self._why or "its pod is not made yet")


def how_it_ended(one: Ticket, pod: Manifest, *, same_pod: bool) -> JobStatus:
    """Of the start before the one that is seen now."""
    last = state.ended_container(pod)
    if same_pod and last:
        ended = JobState.SUCCEEDED if last.get("exitCode") == 0 else JobState.FAILED
        return JobStatus(JobState.PENDING, state.words_of_end(last), job=pod["metadata"]["name"], ended=ended)
    return JobStatus(JobState.PENDING, one.parting or "its pod was replaced", ended=JobState.PREEMPTED)
