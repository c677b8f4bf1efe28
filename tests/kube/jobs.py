"""The controller of Jobs: one pod at a time until one succeeds, too many fail, or time is up."""

import time

from kube.creation import Creation
from kube.defaults import suffix
from kube.deletion import condition, set_condition
from kube.resources import RESOURCES
from kube.store import Object, copy, now, owned_by, reference, seconds

PODS, JOBS = RESOURCES["pods"], RESOURCES["jobs"]


class Jobs(Creation):
    """Looks at every job in each turn."""

    def __init__(self, api, backoff_s: float):
        super().__init__(api)
        self.backoff_s = backoff_s
        self._failed: dict[str, dict[str, float]] = {}  # by job: when which pod was seen to have failed

    def sync(self) -> None:
        """One turn."""
        for job in self.store.list("jobs"):
            if "deletionTimestamp" not in job["metadata"]:
                self._sync(job)

    def _sync(self, job: Object) -> None:
        if any(c["type"] in ("Complete", "Failed") for c in job.get("status", {}).get("conditions", [])):
            self._expire(job)
            return
        spec, pods = job["spec"], owned_by(self.store.list("pods", job["metadata"]["namespace"]), job)
        failed = self._failed.setdefault(job["metadata"]["uid"], {})
        for pod in pods:
            if self._has_failed(job, pod):
                failed.setdefault(pod["metadata"]["uid"], time.monotonic())
        active = [p for p in pods if p["status"].get("phase") in ("Pending", "Running", None)]
        active = [p for p in active if "deletionTimestamp" not in p["metadata"]]
        succeeded = sum(p["status"].get("phase") == "Succeeded" for p in pods)
        self._status(job, len(active), succeeded, len(failed), pods)
        restarts = sum(c["restartCount"] for p in pods for c in p["status"].get("containerStatuses", []))
        if succeeded >= spec.get("completions", 1):
            self._end(job, "Complete", "CompletionsReached", "Reached expected number of succeeded pods", [])
        elif why := self._policy(job, pods):
            self._end(job, "Failed", "PodFailurePolicy", why, active)
        elif len(failed) > spec["backoffLimit"] or restarts > spec["backoffLimit"]:
            said = "Job has reached the specified backoff limit"
            self._end(job, "Failed", "BackoffLimitExceeded", said, active)
        elif self._is_late(job):
            said = "Job was active longer than specified deadline"
            self._end(job, "Failed", "DeadlineExceeded", said, active)
        elif spec["suspend"]:
            self._delete(active)
        elif len(active) < min(spec["parallelism"], spec["completions"] - succeeded) and self._may_retry(
            failed
        ):
            self._create(job)

    def _has_failed(self, job: Object, pod: Object) -> bool:
        over = pod["status"].get("phase") == "Failed"
        going = "deletionTimestamp" in pod["metadata"] and pod["status"].get("phase") != "Succeeded"
        return (over or going) and self._rule(job, pod) != "Ignore"

    def _rule(self, job: Object, pod: Object) -> str:
        for rule in job["spec"].get("podFailurePolicy", {}).get("rules", []):
            for wanted in rule.get("onPodConditions", []):
                if (condition(pod, wanted["type"]) or {}).get("status") == wanted.get("status", "True"):
                    return rule["action"]
            if codes := rule.get("onExitCodes"):
                found = {
                    c["state"]["terminated"]["exitCode"]
                    for c in pod["status"].get("containerStatuses", [])
                    if c["state"].get("terminated", {}).get("exitCode")
                }
                if bool(found & set(codes["values"])) == (codes["operator"] == "In") and found:
                    return rule["action"]
        return "Count"

    def _policy(self, job: Object, pods: list[Object]) -> str:
        for pod in pods:
            if pod["status"].get("phase") == "Failed" and self._rule(job, pod) == "FailJob":
                where = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
                return f"Container for pod {where} failed matching FailJob rule"
        return ""

    def _may_retry(self, failed: dict[str, float]) -> bool:
        if not failed:
            return True
        wait = min(360.0, self.backoff_s * 2 ** (len(failed) - 1))
        return time.monotonic() > max(failed.values()) + wait

    def _create(self, job: Object) -> None:
        meta, pod = job["metadata"], copy(job["spec"]["template"])
        pod["metadata"] |= {"name": f"{meta['name']}-{suffix()}", "ownerReferences": [reference(job)]}
        self.make(PODS, job, pod)

    def _is_late(self, job: Object) -> bool:
        limit, start = job["spec"].get("activeDeadlineSeconds"), job.get("status", {}).get("startTime")
        return bool(limit and start and time.time() > seconds(start) + limit)

    def _end(self, job: Object, kind: str, reason: str, message: str, active: list[Object]) -> None:
        self._delete(active)
        self.event(job, "Completed" if kind == "Complete" else reason, message, kind == "Failed")

        def write(found: Object) -> None:
            first = "SuccessCriteriaMet" if kind == "Complete" else "FailureTarget"
            for each in (first, kind):
                set_condition(found, each, True, reason, message)
            found["status"] |= {"active": 0} | ({"completionTime": now()} if kind == "Complete" else {})
            found["status"] = {k: v for k, v in found["status"].items() if v != 0}

        self.store.update("jobs", job, write)

    def _delete(self, pods: list[Object]) -> None:
        for pod in pods:
            self.api.delete(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"], {})

    def _expire(self, job: Object) -> None:
        wait = job["spec"].get("ttlSecondsAfterFinished")
        over = [c for c in job["status"]["conditions"] if c["type"] in ("Complete", "Failed")]
        if wait is not None and time.time() > seconds(over[0]["lastTransitionTime"]) + wait:
            self.api.delete(JOBS, job["metadata"]["namespace"], job["metadata"]["name"], {})

    def _status(self, job: Object, active: int, succeeded: int, failed: int, pods: list[Object]) -> None:
        ready = sum((condition(p, "Ready") or {}).get("status") == "True" for p in pods)
        going = sum("deletionTimestamp" in p["metadata"] for p in pods)
        counts = {"active": active, "succeeded": succeeded, "failed": failed}

        def write(found: Object) -> None:
            status = found.setdefault("status", {})
            status.setdefault("startTime", now())
            for key, value in counts.items():
                status.pop(key, None)
                status |= {key: value} if value else {}
            status |= {"ready": ready, "terminating": going, "uncountedTerminatedPods": {}}

        self.store.update("jobs", job, write)
