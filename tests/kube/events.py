"""Event objects: what happened to an object, said once and counted afterwards."""

import uuid

from kube.store import Object, Store, now


def record(
    store: Store, about: Object, reason: str, message: str, *, warning: bool = False, source: str = "kubelet"
) -> None:
    """Write an event, or count one that says the same."""
    meta = about["metadata"]
    namespace = meta.get("namespace", "default")
    if store.find("namespaces", "", namespace) is None:
        return
    for old in store.list("events", namespace):
        if (old["involvedObject"]["uid"], old["reason"], old["message"]) == (meta["uid"], reason, message):
            store.update("events", old, lambda e: e.update(count=e["count"] + 1, lastTimestamp=now()))
            return
    reference = {
        "kind": about["kind"],
        "name": meta["name"],
        "uid": meta["uid"],
        "apiVersion": about["apiVersion"],
    }
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{meta['name']}.{uuid.uuid4().hex[:16]}", "namespace": namespace},
        "involvedObject": reference | ({"namespace": meta["namespace"]} if "namespace" in meta else {}),
        "reason": reason,
        "message": message,
        "type": "Warning" if warning else "Normal",
        "source": {"component": source},
        "firstTimestamp": now(),
        "lastTimestamp": now(),
        "count": 1,
        "reportingComponent": source,
        "reportingInstance": "",
    }
    store.create("events", event)
