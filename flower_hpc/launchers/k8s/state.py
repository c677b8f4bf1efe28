"""What a pod's status means for the node in it; pure."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from ..base import JobState, JobStatus

Pod = dict[str, Any]
REFUSED = (
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImagePullBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
)
"""Why a container waits that will not start by waiting: somebody must change something."""
CRASHES, CRASHES_AT_MOST = "CrashLoopBackOff", 3
SENT_AWAY = ("Evicted", "Preempting", "Preempted", "NodeLost", "NodeShutdown", "Terminated", "Shutdown")
LONGEST = 300


def read(pod: Pod) -> JobStatus:
    """Where the node in a pod is.

    A pod of a StatefulSet that ends comes again by itself: what has ended is PENDING, with the reason, and
    ``ended`` says how.
    """
    name, where = pod["metadata"]["name"], pod.get("spec", {}).get("nodeName", "")
    status = pod.get("status", {})
    phase = status.get("phase", "Pending")
    if phase in ("Failed", "Succeeded"):
        return JobStatus(JobState.PENDING, why_ended(pod), job=name, ended=how_ended(pod))
    if leaves := pod["metadata"].get("deletionTimestamp"):
        words = disruption(pod) or "is asked to leave"
        return JobStatus(JobState.RUNNING, words, where=where, job=name, leaves_at=seconds(leaves))
    waiting = _first(pod, "waiting")
    if waiting and waiting.get("reason") in REFUSED:
        return JobStatus(JobState.FAILED, words_of(waiting), job=name, refused=True)
    if waiting or phase == "Pending":
        last = ended_container(pod)
        if waiting.get("reason") == CRASHES and life(pod)[1] >= CRASHES_AT_MOST:
            words = short(f"{CRASHES}: {words_of_end(last)}")
            return JobStatus(JobState.FAILED, words, job=name, where=where)
        reason = unscheduled(pod) or words_of(waiting) or "being started"
        if last:
            reason = f"{reason}: {words_of_end(last)}"
        return JobStatus(JobState.PENDING, short(reason), job=name, where=where, ended=_as_state(last))
    if ended := _first(pod, "terminated"):
        return JobStatus(JobState.PENDING, words_of_end(ended), job=name, where=where, ended=_as_state(ended))
    return JobStatus(JobState.RUNNING, where=where, job=name)


def life(pod: Pod) -> tuple[str, int]:
    """Which start of which pod this is: another one is another process."""
    return pod["metadata"]["uid"], sum(each.get("restartCount", 0) for each in containers(pod))


def containers(pod: Pod) -> list[dict[str, Any]]:
    """Their statuses."""
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]


def ended_container(pod: Pod) -> dict[str, Any]:
    """How a container ended last; empty where none did."""
    for each in containers(pod):
        if found := each.get("lastState", {}).get("terminated") or each.get("state", {}).get("terminated"):
            return dict(found)
    return {}


def unscheduled(pod: Pod) -> str:
    """Why no host was found, in the scheduler's words."""
    for each in conditions(pod, "PodScheduled"):
        if each.get("status") == "False":
            return short(f"{each.get('reason', '')}: {each.get('message', '')}")
    return ""


def disruption(pod: Pod) -> str:
    """Why somebody wants it gone: preempted, evicted, its host is lost."""
    for each in conditions(pod, "DisruptionTarget"):
        if each.get("status") == "True":
            return short(f"{each.get('reason', '')}: {each.get('message', '')}")
    return ""


def conditions(pod: Pod, kind: str) -> Iterator[dict[str, Any]]:
    """Of one type."""
    for each in pod.get("status", {}).get("conditions", ()):
        if each.get("type") == kind:
            yield each


def why_ended(pod: Pod) -> str:
    """Of a pod that is over."""
    status, last = pod.get("status", {}), ended_container(pod)
    said = ": ".join(filter(None, (status.get("reason"), status.get("message"))))
    return short(said or disruption(pod) or words_of_end(last) or f"pod {status.get('phase', 'ended')}")


def how_ended(pod: Pod) -> JobState:
    """Of a pod that is over: sent away, or by itself."""
    status = pod.get("status", {})
    if status.get("reason") in SENT_AWAY or disruption(pod):
        return JobState.PREEMPTED
    if status.get("reason") == "DeadlineExceeded":
        return JobState.TIMEOUT
    return JobState.SUCCEEDED if status.get("phase") == "Succeeded" else JobState.FAILED


def words_of(waiting: dict[str, Any]) -> str:
    """Why a container waits."""
    if waiting.get("reason") == CRASHES:  # the rest names the pod
        return CRASHES
    return short(": ".join(filter(None, (waiting.get("reason"), waiting.get("message")))))


def words_of_end(ended: dict[str, Any]) -> str:
    """Why a container ended: OOMKilled, or its exit code, and the last line that it wrote."""
    if not ended:
        return ""
    reason = ended.get("reason", "")
    code = f"exit code {ended.get('exitCode')}"
    lines = [line for line in str(ended.get("message", "")).splitlines() if line.strip()]
    lines = [line.removeprefix("PilotError: ") for line in lines]
    parts = (code if reason in ("", "Error", "Completed") else f"{reason}, {code}", *lines[-1:])
    return short(": ".join(parts))


def seconds(stamp: str) -> float:
    """Since the epoch."""
    return datetime.fromisoformat(stamp).timestamp()


def short(words: str) -> str:
    """One line, not too long."""
    return " ".join(words.split())[:LONGEST]


def _first(pod: Pod, state: str) -> dict[str, Any]:
    for each in containers(pod):
        if found := each.get("state", {}).get(state):
            if state == "terminated" and each in pod["status"].get("initContainerStatuses", ()):
                continue
            return dict(found)
    return {}


def _as_state(ended: dict[str, Any]) -> JobState | None:
    if not ended:
        return None
    return JobState.SUCCEEDED if ended.get("exitCode") == 0 else JobState.FAILED
