"""How objects go: at once, after a grace period, with or without what they own; and evictions."""

import math
from typing import Any

from kube import selecting
from kube.errors import ApiError, conflict
from kube.resources import Resource
from kube.store import Object, Store, copy, now, owned_by

REFUSED = "Cannot evict pod as it would violate the pod's disruption budget."


class Deletion:
    """DELETE and the subresource ``eviction``."""

    store: Store

    def delete(
        self, resource: Resource, namespace: str, name: str, options: Object, dry_run: bool = False
    ) -> Object:
        """Delete one object, as ``DeleteOptions`` ask."""
        with self.store.changed:
            item = self.store.get(resource.plural, namespace, name)
            _preconditions(item, resource, options.get("preconditions") or {})
            return item if dry_run else self._delete(resource, item, options)

    def _delete(self, resource: Resource, item: Object, options: Object) -> Object:
        how = options.get("propagationPolicy") or (
            "Orphan" if options.get("orphanDependents") else "Background"
        )
        if how == "Orphan":
            self._orphan(item)
        if resource.plural == "pods":
            return self._delete_pod(item, options.get("gracePeriodSeconds"))
        if resource.plural == "namespaces":
            return self._mark(resource, item, [], phase="Terminating")
        if how == "Foreground" and self._dependents(item):
            return self._mark(resource, item, ["foregroundDeletion"])
        if item["metadata"].get("finalizers"):
            return self._mark(resource, item, [])
        return self.store.remove(resource.plural, item)

    def _mark(self, resource: Resource, item: Object, finalizers: list[str], phase: str = "") -> Object:
        def mark(found: Object) -> None:
            meta = found["metadata"]
            meta.setdefault("deletionTimestamp", now())
            if finalizers:
                meta["finalizers"] = sorted({*meta.get("finalizers", []), *finalizers})
            if phase:
                found["status"] = {"phase": phase}

        return self.store.update(resource.plural, item, mark) or item

    def _delete_pod(self, pod: Object, grace: int | None) -> Object:
        grace = pod["spec"]["terminationGracePeriodSeconds"] if grace is None else grace
        over = pod["status"].get("phase") in ("Succeeded", "Failed")
        if grace <= 0 or over or not pod["spec"].get("nodeName"):
            return self.store.remove("pods", pod)

        def mark(found: Object) -> None:
            meta = found["metadata"]
            meta.setdefault("deletionTimestamp", now())
            meta["deletionGracePeriodSeconds"] = min(grace, meta.get("deletionGracePeriodSeconds", grace))

        return self.store.update("pods", pod, mark) or pod

    def _dependents(self, owner: Object) -> list[tuple[str, Object]]:
        kinds = ("pods", "jobs", "statefulsets", "deployments", "secrets", "configmaps", "services")
        kinds += (
            "persistentvolumeclaims",
            "roles",
            "rolebindings",
            "networkpolicies",
            "poddisruptionbudgets",
        )
        where = owner["metadata"].get("namespace", "")
        return [
            (plural, item) for plural in kinds for item in owned_by(self.store.list(plural, where), owner)
        ]

    def _orphan(self, owner: Object) -> None:
        uid = owner["metadata"]["uid"]

        def forget(item: Object) -> None:
            meta = item["metadata"]
            meta["ownerReferences"] = [r for r in meta["ownerReferences"] if r["uid"] != uid]

        for plural, item in self._dependents(owner):
            self.store.update(plural, item, forget)

    def evict(self, pod: Object, options: Object) -> None:
        """Delete a pod, unless a disruption budget refuses: 429."""
        running = pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
        for budget in (
            self.store.list("poddisruptionbudgets", pod["metadata"]["namespace"]) if running else []
        ):
            if selecting.matches(budget["spec"].get("selector"), pod["metadata"].get("labels", {})):
                state = disruptions(self.store, budget)
                if state["disruptionsAllowed"] < 1 and is_ready(pod):
                    raise _too_many(budget, state)
        disrupt(self.store, pod, "EvictionByEvictionAPI", "Eviction API: evicting")
        _preconditions(pod, None, options.get("preconditions") or {})
        self._delete_pod(
            self.store.get("pods", pod["metadata"]["namespace"], pod["metadata"]["name"]),
            options.get("gracePeriodSeconds"),
        )


def _preconditions(item: Object, resource: Resource | None, wanted: Object) -> None:
    meta = item["metadata"]
    if resource and wanted.get("uid", meta["uid"]) != meta["uid"]:
        why = (
            f"the UID in the precondition ({wanted['uid']}) does not match the UID in record "
            f"({meta['uid']}). "
            "The object might have been deleted and then recreated"
        )
        raise conflict(resource, meta["name"], why)
    version = meta["resourceVersion"]
    if resource and wanted.get("resourceVersion", version) != version:
        why = (
            f"the ResourceVersion in the precondition ({wanted['resourceVersion']}) does not match the "
            f"ResourceVersion in record ({version}). The object might have been modified"
        )
        raise conflict(resource, meta["name"], why)


def _too_many(budget: Object, state: Object) -> ApiError:
    name = budget["metadata"]["name"]
    said = (
        f"The disruption budget {name} needs {state['desiredHealthy']} healthy pods "
        f"and has {state['currentHealthy']} currently"
    )
    causes = [{"reason": "DisruptionBudget", "message": said}]
    return ApiError(429, "TooManyRequests", REFUSED, {"causes": causes})


def disruptions(store: Store, budget: Object) -> Object:
    """The status of a PodDisruptionBudget."""
    spec, where = budget["spec"], budget["metadata"]["namespace"]
    chosen = [
        p
        for p in store.list("pods", where)
        if selecting.matches(spec.get("selector"), p["metadata"].get("labels", {}))
    ]
    healthy = sum(is_ready(p) and "deletionTimestamp" not in p["metadata"] for p in chosen)
    owners = {r["uid"] for p in chosen for r in p["metadata"].get("ownerReferences", [])}
    sets = [s for s in store.list("statefulsets", where) + store.list("deployments", where)]
    expected = sum(s["spec"]["replicas"] for s in sets if s["metadata"]["uid"] in owners) or len(chosen)
    if "maxUnavailable" in spec:
        desired = max(0, expected - _share(spec["maxUnavailable"], expected))
    else:
        desired = _share(spec.get("minAvailable", 1), expected)
    return {
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "expectedPods": expected,
        "disruptionsAllowed": max(0, healthy - desired),
        "observedGeneration": budget["metadata"].get("generation", 1),
    }


def _share(value: int | str, total: int) -> int:
    return math.ceil(int(value.rstrip("%")) * total / 100) if isinstance(value, str) else value


def condition(pod: Object, kind: str) -> Object | None:
    """A condition of a pod or another object."""
    return next((c for c in pod.get("status", {}).get("conditions", []) if c["type"] == kind), None)


def is_ready(pod: Object) -> bool:
    """Whether the condition ``Ready`` holds."""
    return (condition(pod, "Ready") or {}).get("status") == "True"


def set_condition(item: Object, kind: str, status: bool, reason: str = "", message: str = "") -> None:
    """Write a condition in place; its time changes with its status."""
    said, found = "True" if status else "False", condition(item, kind)
    new: dict[str, Any] = {"type": kind, "status": said, "lastProbeTime": None}
    same = found is not None and found["status"] == said
    new["lastTransitionTime"] = found["lastTransitionTime"] if same else now()
    new |= {k: v for k, v in (("reason", reason), ("message", message)) if v}
    conditions = item.setdefault("status", {}).setdefault("conditions", [])
    item["status"]["conditions"] = [c for c in conditions if c["type"] != kind] + [new]


def disrupt(store: Store, pod: Object, reason: str, message: str) -> None:
    """Say that a pod is about to be ended, not by itself."""

    def mark(found: Object) -> None:
        set_condition(found, "DisruptionTarget", True, reason, message)

    store.update("pods", pod, mark)


__all__ = ["Deletion", "condition", "copy", "disrupt", "disruptions", "is_ready", "set_condition"]
