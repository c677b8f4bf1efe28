"""The controller of StatefulSets: numbered pods, in order or all at once, with claims of their own."""

import hashlib
import json

from kube.creation import Creation
from kube.deletion import is_ready
from kube.resources import RESOURCES
from kube.store import Object, copy, owned_by, reference

SETS, PODS, CLAIMS = (RESOURCES[p] for p in ("statefulsets", "pods", "persistentvolumeclaims"))


def revision_of(item: Object) -> str:
    """The name of a template's revision; another hash than a real server's."""
    text = json.dumps(item["spec"]["template"], sort_keys=True)
    return f"{item['metadata']['name']}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


class StatefulSets(Creation):
    """Looks at every set in each turn."""

    def sync(self) -> None:
        """One turn."""
        for item in self.store.list("statefulsets"):
            if "deletionTimestamp" not in item["metadata"]:
                self._sync(item)

    def _sync(self, item: Object) -> None:
        pods = {
            self._ordinal(p): p
            for p in owned_by(self.store.list("pods", item["metadata"]["namespace"]), item)
        }
        start = item["spec"].get("ordinals", {}).get("start", 0)
        wanted = range(start, start + item["spec"]["replicas"])
        self._status(item, pods)
        for pod in pods.values():
            if (
                pod["status"].get("phase") in ("Failed", "Succeeded")
                and "deletionTimestamp" not in pod["metadata"]
            ):
                self._say(item, pod, "delete", "RecreatingFailedPod")
                self.api.delete(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"], {})
                return
        parallel = item["spec"]["podManagementPolicy"] == "Parallel"
        if self._create_missing(item, pods, wanted, parallel) and self._remove_surplus(
            item, pods, wanted, parallel
        ):
            self._roll(item, pods, wanted)

    def _create_missing(self, item: Object, pods: dict, wanted: range, parallel: bool) -> bool:
        done = True
        for ordinal in wanted:
            pod = pods.get(ordinal)
            if pod is None:
                self._create(item, ordinal)
            if not parallel and (pod is None or not is_ready(pod) or "deletionTimestamp" in pod["metadata"]):
                return False
            done = done and pod is not None
        return done

    def _create(self, item: Object, ordinal: int) -> None:
        spec, meta = item["spec"], item["metadata"]
        pod = copy(spec["template"])
        name = f"{meta['name']}-{ordinal}"
        labels = pod.setdefault("metadata", {}).setdefault("labels", {})
        labels |= {
            "apps.kubernetes.io/pod-index": str(ordinal),
            "statefulset.kubernetes.io/pod-name": name,
            "controller-revision-hash": revision_of(item),
        }
        pod["metadata"] |= {
            "name": name,
            "namespace": meta["namespace"],
            "ownerReferences": [reference(item)],
        }
        pod["spec"]["hostname"] = name
        if spec.get("serviceName"):
            pod["spec"]["subdomain"] = spec["serviceName"]
        volumes = [v for v in pod["spec"].get("volumes", [])]
        for claim in spec.get("volumeClaimTemplates", []):
            which = self._claim(item, claim, name)
            volumes = [v for v in volumes if v["name"] != claim["metadata"]["name"]]
            source = {"persistentVolumeClaim": {"claimName": which}}
            volumes.append({"name": claim["metadata"]["name"]} | source)
        pod["spec"]["volumes"] = volumes
        self.make(PODS, item, pod)

    def _claim(self, item: Object, template: Object, pod: str) -> str:
        meta, name = item["metadata"], f"{template['metadata']['name']}-{pod}"
        if self.store.find("persistentvolumeclaims", meta["namespace"], name) is None:
            labels = item["spec"]["selector"].get("matchLabels", {}) | template["metadata"].get("labels", {})
            claim = {"metadata": {"name": name, "labels": labels}, "spec": copy(template["spec"])}
            if item["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Delete":
                claim["metadata"]["ownerReferences"] = [reference(item)]
            self.make(CLAIMS, item, claim)
        return name

    def _remove_surplus(self, item: Object, pods: dict, wanted: range, parallel: bool) -> bool:
        surplus = sorted((o for o in pods if o not in wanted), reverse=True)
        for ordinal in surplus:
            pod = pods[ordinal]
            if "deletionTimestamp" not in pod["metadata"]:
                self._say(item, pod, "delete", "SuccessfulDelete")
                self.api.delete(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"], {})
            if not parallel:
                return False
        if not surplus and item["spec"]["persistentVolumeClaimRetentionPolicy"]["whenScaled"] == "Delete":
            self._remove_claims(item, wanted)
        return not surplus

    def _remove_claims(self, item: Object, wanted: range) -> None:
        meta = item["metadata"]
        for claim in item["spec"].get("volumeClaimTemplates", []):
            start = f"{claim['metadata']['name']}-{meta['name']}-"
            for found in self.store.list("persistentvolumeclaims", meta["namespace"]):
                ordinal = found["metadata"]["name"].removeprefix(start)
                if ordinal.isdigit() and int(ordinal) not in wanted:
                    self.api.delete(CLAIMS, meta["namespace"], found["metadata"]["name"], {})

    def _roll(self, item: Object, pods: dict, wanted: range) -> None:
        strategy = item["spec"]["updateStrategy"]
        if strategy["type"] != "RollingUpdate":
            return
        first = strategy.get("rollingUpdate", {}).get("partition", 0)
        for ordinal in reversed(wanted):
            if ordinal < first:
                return
            pod = pods[ordinal]
            going = "deletionTimestamp" in pod["metadata"]
            if not going and pod["metadata"]["labels"]["controller-revision-hash"] != revision_of(item):
                self._say(item, pod, "delete", "SuccessfulDelete")
                self.api.delete(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"], {})
                return
            if going or not is_ready(pod):
                return

    def _say(self, item: Object, pod: Object, did: str, reason: str) -> None:
        name, pod_name = item["metadata"]["name"], pod["metadata"]["name"]
        self.event(item, reason, f"{did} Pod {pod_name} in StatefulSet {name} successful")

    def _ordinal(self, pod: Object) -> int:
        return int(pod["metadata"]["name"].rpartition("-")[2])

    def _status(self, item: Object, pods: dict) -> None:
        newest = revision_of(item)
        updated = sum(
            p["metadata"]["labels"].get("controller-revision-hash") == newest for p in pods.values()
        )
        ready = sum(map(is_ready, pods.values()))
        old = item.get("status", {}).get("currentRevision", newest)
        current = newest if updated == len(pods) else old
        status = {
            "observedGeneration": item["metadata"]["generation"],
            "replicas": len(pods),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "currentReplicas": sum(
                p["metadata"]["labels"].get("controller-revision-hash") == current for p in pods.values()
            ),
            "updatedReplicas": updated,
            "currentRevision": current,
            "updateRevision": newest,
            "collisionCount": 0,
        }
        status = {
            k: v for k, v in status.items() if v or k in ("replicas", "collisionCount", "availableReplicas")
        }
        self.store.update("statefulsets", item, lambda found: found.update(status=status))
