"""The small controllers: garbage, namespaces, claims, quotas, disruption budgets, lost nodes."""

import time
from pathlib import Path

from kube import admission, quantity
from kube.api import Api
from kube.deletion import condition, disrupt, disruptions, set_condition
from kube.resources import RESOURCES, stored
from kube.store import Object, now

UNREACHABLE = "node.kubernetes.io/unreachable"


class Housekeeping:
    """Looks at all objects in each turn; ``lost`` are nodes whose kubelet does not answer, and since when."""

    def __init__(self, api: Api, folder: Path, lost: dict[str, float], node_grace_s: float):
        self.api, self.store, self.folder, self.lost, self.node_grace_s = (
            api,
            api.store,
            folder,
            lost,
            node_grace_s,
        )
        self._seen = 0

    def sync(self) -> None:
        """One turn."""
        self._nodes()
        if self._seen == self.store.revision:
            return
        self._seen = self.store.revision
        self._garbage()
        self._namespaces()
        self._claims()
        for quota in self.store.list("resourcequotas"):
            used = {k: quantity.write(v) for k, v in admission.used(self.store, quota).items()}
            status = {"hard": quota["spec"].get("hard", {}), "used": used}
            self.store.update("resourcequotas", quota, lambda q, status=status: q.update(status=status))
        for budget in self.store.list("poddisruptionbudgets"):
            status = disruptions(self.store, budget)
            self.store.update(
                "poddisruptionbudgets", budget, lambda b, status=status: b.update(status=status)
            )

    def _garbage(self) -> None:
        uids = {item["metadata"]["uid"] for r in stored() for item in self.store.list(r.plural)}
        for resource in stored():
            for item in self.store.list(resource.plural):
                meta = item["metadata"]
                owners = meta.get("ownerReferences", [])
                waiting = any(self._is_going(o, item) for o in owners)
                if (
                    owners
                    and (waiting or not any(o["uid"] in uids for o in owners))
                    and "deletionTimestamp" not in meta
                ):
                    self.api.delete(resource, meta.get("namespace", ""), meta["name"], {})
                if "foregroundDeletion" in meta.get("finalizers", []) and not self.api._dependents(item):
                    self.store.update(resource.plural, item, _finish_foreground)

    def _is_going(self, owner: Object, item: Object) -> bool:
        plural = next((r.plural for r in stored() if r.kind == owner["kind"]), None)
        found = plural and self.store.find(plural, item["metadata"].get("namespace", ""), owner["name"])
        return bool(found) and "foregroundDeletion" in found["metadata"].get("finalizers", [])

    def _namespaces(self) -> None:
        for namespace in self.store.list("namespaces"):
            if "deletionTimestamp" not in namespace["metadata"]:
                continue
            name, left = namespace["metadata"]["name"], 0
            for resource in stored():
                for item in self.store.list(resource.plural, name) if resource.namespaced else []:
                    left += 1
                    if "deletionTimestamp" not in item["metadata"]:
                        self.api.delete(resource, name, item["metadata"]["name"], {})
            if not left:
                self.store.remove("namespaces", namespace)

    def _claims(self) -> None:
        for claim in self.store.list("persistentvolumeclaims"):
            if claim["status"]["phase"] == "Pending":
                meta, spec = claim["metadata"], claim["spec"]
                claim_folder(self.folder, claim).mkdir(parents=True, exist_ok=True)
                status = {"phase": "Bound", "accessModes": spec["accessModes"]}
                status["capacity"] = spec["resources"]["requests"]

                def bind(found: Object, status: Object = status, uid: str = meta["uid"]) -> None:
                    found["spec"]["volumeName"], found["status"] = f"pvc-{uid}", status

                self.store.update("persistentvolumeclaims", claim, bind)

    def _nodes(self) -> None:
        names = {n["metadata"]["name"] for n in self.store.list("nodes")}
        for pod in self.store.list("pods"):
            node = pod["spec"].get("nodeName")
            if node and node not in names:
                disrupt(self.store, pod, "DeletionByPodGC", "PodGC: node no longer exists")
                self.store.remove("pods", pod)
            elif node in self.lost and time.monotonic() > self.lost[node] + self.node_grace_s:
                self._of_lost_node(pod, time.monotonic() - self.lost[node] - self.node_grace_s)
        for node in self.store.list("nodes"):
            since = self.lost.get(node["metadata"]["name"])
            if since is not None and time.monotonic() > since + self.node_grace_s:
                self.store.update("nodes", node, _unreachable)

    def _of_lost_node(self, pod: Object, passed: float) -> None:
        meta = pod["metadata"]
        self.store.update("pods", pod, lambda p: set_condition(p, "Ready", False))
        waits = [
            t.get("tolerationSeconds", float("inf"))
            for t in pod["spec"].get("tolerations", [])
            if t.get("key") in (UNREACHABLE, None) and t.get("effect") in ("NoExecute", None)
        ]
        if passed > min(waits, default=0) and "deletionTimestamp" not in meta:
            said = "Taint manager: deleting due to NoExecute taint"
            disrupt(self.store, pod, "DeletionByTaintManager", said)
            self.api.delete(RESOURCES["pods"], meta["namespace"], meta["name"], {})


def _unreachable(node: Object) -> None:
    taints = node["spec"].setdefault("taints", [])
    if all(t["key"] != UNREACHABLE for t in taints):
        for effect in ("NoSchedule", "NoExecute"):
            taints.append({"key": UNREACHABLE, "effect": effect, "timeAdded": now()})
        set_condition(node, "Ready", False, "NodeStatusUnknown", "Kubelet stopped posting node status.")
        condition(node, "Ready")["status"] = "Unknown"


def _finish_foreground(item: Object) -> None:
    meta = item["metadata"]
    meta["finalizers"] = [f for f in meta["finalizers"] if f != "foregroundDeletion"]


def claim_folder(folder: Path, claim: Object) -> Path:
    """Where a claim's data lies."""
    return folder / "volumes" / claim["metadata"]["uid"]
