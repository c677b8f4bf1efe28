"""What ``kubectl get`` prints for the kinds that people look at; other kinds it prints by name and age."""

import time
from typing import Any

from kube.resources import Resource
from kube.store import seconds

Object = dict[str, Any]


def _pod(pod: Object) -> list[str]:
    status = pod.get("status", {})
    found = status.get("containerStatuses", [])
    ready = f"{sum(c['ready'] for c in found)}/{len(pod['spec']['containers'])}"
    return [ready, _pod_word(pod, found), str(sum(c["restartCount"] for c in found))]


def _pod_word(pod: Object, found: list[Object]) -> str:
    if "deletionTimestamp" in pod["metadata"]:
        return "Terminating"
    for state in (c["state"] for c in found):
        reason = state.get("waiting", state.get("terminated", {})).get("reason")
        if reason:
            return reason
    return pod["status"].get("reason") or pod["status"].get("phase", "")


def _workload(item: Object) -> list[str]:
    return [f"{item.get('status', {}).get('readyReplicas', 0)}/{item['spec']['replicas']}"]


def _job(job: Object) -> list[str]:
    status = job.get("status", {})
    word = next(
        (c["type"] for c in status.get("conditions", []) if c["type"] in ("Complete", "Failed")), "Running"
    )
    return [word, f"{status.get('succeeded', 0)}/{job['spec'].get('completions', 1)}"]


def _node(node: Object) -> list[str]:
    ready = next((c["status"] for c in node["status"]["conditions"] if c["type"] == "Ready"), "")
    word = {"True": "Ready"}.get(ready, "NotReady")
    return [word + (",SchedulingDisabled" if node["spec"].get("unschedulable") else "")]


def _event(event: Object) -> list[str]:
    about = event["involvedObject"]
    return [event["type"], event["reason"], f"{about['kind'].lower()}/{about['name']}", event["message"]]


COLUMNS = {
    "pods": (["Ready", "Status", "Restarts"], _pod),
    "statefulsets": (["Ready"], _workload),
    "deployments": (["Ready"], _workload),
    "jobs": (["Status", "Completions"], _job),
    "nodes": (["Status"], _node),
    "events": (["Type", "Reason", "Object", "Message"], _event),
}


def table(resource: Resource, answer: Object) -> Object | None:
    """An answer as a ``Table``; None where there are no columns for its kind."""
    if resource.plural not in COLUMNS:
        return None
    names, cells = COLUMNS[resource.plural]
    items = answer.get("items", [answer])
    columns = [
        {"name": n, "type": "string", "format": "name" if n == "Name" else ""}
        for n in ["Name", *names, "Age"]
    ]
    columns = [c | {"description": "", "priority": 0} for c in columns]
    kind = {"kind": resource.kind, "apiVersion": resource.api_version}
    rows = [{"cells": [i["metadata"]["name"], *cells(i), _age(i)], "object": kind | i} for i in items]
    meta = {k: v for k, v in answer["metadata"].items() if k in ("resourceVersion", "continue")}
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta,
        "columnDefinitions": columns,
        "rows": rows,
    }


def _age(item: Object) -> str:
    passed = int(time.time() - seconds(item["metadata"]["creationTimestamp"]))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if passed >= 2 * length:
            return f"{passed // length}{unit}"
    return f"{passed}s"
