"""What a Job and its pod tell of the call in them: the error that its end amounts to; pure."""

from typing import Any

from ...errors import JobFailed, JobLost
from ..base import JobState
from . import state
from .place import Manifest

DEADLINE = "DeadlineExceeded"


def is_over(pod: Manifest) -> bool:
    """Whether nothing of it runs any more."""
    return pod.get("status", {}).get("phase") in ("Failed", "Succeeded")


def was_sent_away(pod: Manifest) -> bool:
    """Whether somebody asked it to leave; who, its Job may tell."""
    return "deletionTimestamp" in pod["metadata"]


def failure_of_pod(job: str, pod: Manifest) -> JobFailed:
    """Of a pod that is over, or cannot start, by itself."""
    found = state.read(pod)
    if found.refused:
        return JobFailed(f"{job}: {found.reason}")
    ended = state.how_ended(pod)
    if ended is JobState.PREEMPTED:
        return JobLost(f"{job}: {state.why_ended(pod)}")
    if ended is JobState.SUCCEEDED:
        return JobFailed(f"{job}: it ended well, but sent no result")
    return JobFailed(f"{job}: {state.why_ended(pod)}")


def failure_of_gone(job: str, made: Manifest | None, pod: Manifest | None) -> JobFailed:
    """Where the pod was deleted: its time was up, or somebody wanted its place."""
    if made is None:
        return JobLost(f"{job}: it was deleted")
    if words := over_time(made):
        return JobFailed(f"{job}: {words}")
    words = state.disruption(pod) if pod is not None else ""
    return JobLost(f"{job}: {words or 'its pod was deleted'}")


def over_time(made: Manifest) -> str:
    """Why a Job was ended whose time was up; else empty."""
    for each in _conditions(made):
        if each.get("status") == "True" and each.get("reason") == DEADLINE:
            return state.short(f"{DEADLINE}: {each.get('message', '')}")
    return ""


def has_failed(made: Manifest) -> bool:
    """Whether the cluster makes no pod for it any more."""
    return any(each.get("type") == "Failed" and each.get("status") == "True" for each in _conditions(made))


def _conditions(made: Manifest) -> list[dict[str, Any]]:
    return list(made.get("status", {}).get("conditions", ()))
