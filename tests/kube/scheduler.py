"""The scheduler: the node with the most room that fits a pod, or the reasons why none does."""

from collections import Counter
from decimal import Decimal
from typing import Any

from kube import events, quantity, selecting
from kube.deletion import set_condition
from kube.store import Object, Store

Amounts = dict[str, Decimal]


def requests(spec: Object) -> Amounts:
    """What a pod asks for: its containers together, or its greediest init container."""

    def of(container: Object) -> Amounts:
        found = container.get("resources", {}).get("requests", {})
        return {name: quantity.parse(amount) for name, amount in found.items()}

    total: Amounts = {"pods": Decimal(1)}
    for container in spec["containers"]:
        for name, amount in of(container).items():
            total[name] = total.get(name, Decimal(0)) + amount
    for container in spec.get("initContainers", []):
        for name, amount in of(container).items():
            total[name] = max(total.get(name, Decimal(0)), amount)
    return total


def tolerates(spec: Object, taint: Object) -> bool:
    """Whether a pod stands a node's taint."""
    for t in spec.get("tolerations", []):
        same_effect = t.get("effect") in (None, "", taint["effect"])
        exists = t.get("operator") == "Exists"
        same_key = t.get("key") == taint["key"] or (not t.get("key") and exists)
        if same_effect and same_key and (exists or t.get("value", "") == taint.get("value", "")):
            return True
    return False


def is_chosen(spec: Object, node: Object) -> bool:
    """Whether nodeSelector and required nodeAffinity allow a node."""
    labels = node["metadata"].get("labels", {})
    if any(labels.get(key) != value for key, value in spec.get("nodeSelector", {}).items()):
        return False
    affinity = spec.get("affinity", {}).get("nodeAffinity", {})
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    names = {"metadata.name": node["metadata"]["name"]}
    return any(
        all(selecting.requirement(r, labels) for r in term.get("matchExpressions", []))
        and all(selecting.requirement(r, names) for r in term.get("matchFields", []))
        for term in required["nodeSelectorTerms"]
    )


class Scheduler:
    """Binds pods to nodes."""

    def __init__(self, store: Store):
        self.store, self._seen = store, -1

    def sync(self) -> None:
        """One turn; nothing to do while nothing changes."""
        if self._seen == self.store.revision:
            return
        pods = self.store.list("pods")
        waiting = [
            p for p in pods if not p["spec"].get("nodeName") and "deletionTimestamp" not in p["metadata"]
        ]
        waiting.sort(key=lambda p: -p["spec"].get("priority", 0))
        if waiting:
            nodes = self.store.list("nodes")
            free = {n["metadata"]["name"]: self._free(n, pods) for n in nodes}
            for pod in waiting:
                self._schedule(pod, nodes, free)
        self._seen = self.store.revision

    def _free(self, node: Object, pods: list[Object]) -> Amounts:
        name = node["metadata"]["name"]
        free = {key: quantity.parse(value) for key, value in node["status"]["allocatable"].items()}
        for pod in pods:
            over = pod["status"].get("phase") in ("Failed", "Succeeded")
            if pod["spec"].get("nodeName") == name and not over:
                _take(free, requests(pod["spec"]))
        return free

    def _schedule(self, pod: Object, nodes: list[Object], free: dict[str, Amounts]) -> None:
        asked, reasons, fitting = requests(pod["spec"]), Counter(), []
        for node in nodes:
            why = self._why_not(pod["spec"], asked, node, free[node["metadata"]["name"]])
            reasons.update(why)
            fitting += [] if why else [node["metadata"]["name"]]
        if not fitting:
            self._unschedulable(pod, len(nodes), reasons)
            return
        best = max(fitting, key=lambda name: (free[name].get("cpu", 0), free[name].get("memory", 0)))
        _take(free[best], asked)

        def bind(found: Object) -> None:
            found["spec"]["nodeName"] = best
            set_condition(found, "PodScheduled", True)

        self.store.update("pods", pod, bind)
        where = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        self._say(pod, "Scheduled", f"Successfully assigned {where} to {best}", False)

    def _why_not(self, spec: Object, asked: Amounts, node: Object, free: Amounts) -> list[str]:
        cordoned = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
        if node["spec"].get("unschedulable") and not tolerates(spec, cordoned):
            return ["node(s) were unschedulable"]
        for taint in node["spec"].get("taints", []):
            if taint["effect"] != "PreferNoSchedule" and not tolerates(spec, taint):
                return [f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"]
        if not is_chosen(spec, node):
            return ["node(s) didn't match Pod's node affinity/selector"]
        short = [name for name, amount in asked.items() if free.get(name, Decimal(0)) < amount]
        return ["Too many pods" if name == "pods" else f"Insufficient {name}" for name in short]

    def _unschedulable(self, pod: Object, total: int, reasons: Counter) -> None:
        said = ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))
        end = f" preemption: 0/{total} nodes are available: {total} Preemption is not helpful for scheduling."
        message = (
            f"0/{total} nodes are available: {said}.{end}" if total else "no nodes available to schedule pods"
        )
        old = [c for c in pod["status"].get("conditions", []) if c["type"] == "PodScheduled"]
        if old and old[0].get("message") == message:
            return

        def write(found: Object) -> None:
            set_condition(found, "PodScheduled", False, "Unschedulable", message)

        self.store.update("pods", pod, write)
        self._say(pod, "FailedScheduling", message, True)

    def _say(self, pod: Object, reason: str, message: str, warning: bool) -> Any:
        events.record(self.store, pod, reason, message, warning=warning, source="default-scheduler")


def _take(free: Amounts, asked: Amounts) -> None:
    for name, amount in asked.items():
        free[name] = free.get(name, Decimal(0)) - amount
