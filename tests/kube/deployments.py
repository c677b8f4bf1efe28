"""The controller of Deployments, which makes pods itself: there are no ReplicaSets."""

import hashlib
import json

from kube.creation import Creation
from kube.defaults import suffix
from kube.deletion import is_ready, set_condition
from kube.resources import RESOURCES
from kube.store import Object, copy, owned_by, reference

PODS = RESOURCES["pods"]


class Deployments(Creation):
    """Looks at every deployment in each turn."""

    def sync(self) -> None:
        """One turn."""
        for item in self.store.list("deployments"):
            if "deletionTimestamp" not in item["metadata"]:
                self._sync(item)

    def _sync(self, item: Object) -> None:
        pods = owned_by(self.store.list("pods", item["metadata"]["namespace"]), item)
        live = [
            p
            for p in pods
            if "deletionTimestamp" not in p["metadata"]
            and p["status"].get("phase") not in ("Failed", "Succeeded")
        ]
        text = json.dumps(item["spec"]["template"], sort_keys=True)
        mark = hashlib.sha256(text.encode()).hexdigest()[:10]
        new = [p for p in live if p["metadata"]["labels"].get("pod-template-hash") == mark]
        old = [p for p in live if p not in new]
        wanted = item["spec"]["replicas"]
        recreate = item["spec"]["strategy"]["type"] == "Recreate"
        if not (recreate and (old or len(pods) > len(live))):
            for _ in range(wanted - len(new)):
                self._create(item, mark)
        ready = sum(map(is_ready, new))
        for pod in (old if recreate else old[: max(0, ready + len(old) - wanted)]) + new[wanted:]:
            self.api.delete(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"], {})
        self._status(item, live, new)

    def _create(self, item: Object, mark: str) -> None:
        meta, pod = item["metadata"], copy(item["spec"]["template"])
        pod.setdefault("metadata", {}).setdefault("labels", {})["pod-template-hash"] = mark
        name = f"{meta['name']}-{mark}-{suffix()}"
        pod["metadata"] |= {"name": name, "ownerReferences": [reference(item)]}
        self.make(PODS, item, pod)

    def _status(self, item: Object, live: list[Object], new: list[Object]) -> None:
        ready, wanted = sum(map(is_ready, live)), item["spec"]["replicas"]
        counts = {
            "observedGeneration": item["metadata"]["generation"],
            "replicas": len(live),
            "updatedReplicas": len(new),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "unavailableReplicas": max(0, wanted - ready),
        }

        def write(found: Object) -> None:
            conditions = found.get("status", {}).get("conditions", [])
            found["status"] = {k: v for k, v in counts.items() if v} | {"conditions": conditions}
            reason = "MinimumReplicasAvailable" if ready >= wanted else "MinimumReplicasUnavailable"
            set_condition(found, "Available", ready >= wanted, reason)

        self.store.update("deployments", item, write)
