"""What the server fills in where a manifest is silent; clients compare with what they read back."""

import base64
import random
from typing import Any

from kube import quantity

Object = dict[str, Any]
LETTERS = "bcdfghjklmnpqrstvwxz2456789"


def suffix(length: int = 5) -> str:
    """What ``generateName`` and controllers append."""
    return "".join(random.choices(LETTERS, k=length))


def fill(item: Object, plural: str) -> None:
    """Complete a decoded object in place."""
    meta = item["metadata"]
    if not meta.get("name") and meta.get("generateName"):
        meta["name"] = meta["generateName"] + suffix()
    if plural in OF_KINDS:
        OF_KINDS[plural](item)
    if plural == "statefulsets":
        item.setdefault("status", {"replicas": 0, "availableReplicas": 0})
    if plural in ("deployments", "jobs", "resourcequotas"):
        item.setdefault("status", {})


def _set(spec: Object, **values: Any) -> None:
    for key, value in values.items():
        spec.setdefault(key, value)


def pod_spec(spec: Object) -> None:
    """A pod's, alone or in a template."""
    _set(
        spec,
        restartPolicy="Always",
        terminationGracePeriodSeconds=30,
        dnsPolicy="ClusterFirst",
        schedulerName="default-scheduler",
        securityContext={},
    )
    if "serviceAccountName" in spec:
        spec["serviceAccount"] = spec["serviceAccountName"]
    for volume in spec.get("volumes", []):
        _volume(volume)
    for container in [*spec.get("initContainers", []), *spec.get("containers", [])]:
        _container(container)


def _volume(volume: Object) -> None:
    for kind in ("secret", "configMap", "projected", "downwardAPI"):
        if kind in volume:
            _set(volume[kind], defaultMode=0o644)
    if "hostPath" in volume:
        _set(volume["hostPath"], type="")
    for source in volume.get("projected", {}).get("sources", []):
        if "serviceAccountToken" in source:
            _set(source["serviceAccountToken"], expirationSeconds=3600)


def _container(container: Object) -> None:
    image = container.get("image", "")
    latest = ":" not in image.rpartition("/")[2] or image.endswith(":latest")
    _set(
        container,
        imagePullPolicy="Always" if latest and "@" not in image else "IfNotPresent",
        terminationMessagePath="/dev/termination-log",
        terminationMessagePolicy="File",
        resources={},
    )
    for port in container.get("ports", []):
        _set(port, protocol="TCP")
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if probe in container:
            _probe(container[probe])
    for one in container.get("env", []):
        if "fieldRef" in one.get("valueFrom", {}):
            _set(one["valueFrom"]["fieldRef"], apiVersion="v1")
    limits = container["resources"].get("limits", {})
    if limits:
        container["resources"]["requests"] = limits | container["resources"].get("requests", {})


def _probe(probe: Object) -> None:
    _set(probe, timeoutSeconds=1, periodSeconds=10, successThreshold=1, failureThreshold=3)
    if "httpGet" in probe:
        _set(probe["httpGet"], path="/", scheme="HTTP")
    if "grpc" in probe:
        _set(probe["grpc"], service="")


def pod(item: Object) -> None:
    """A pod."""
    pod_spec(item["spec"]) if "spec" in item else None
    spec = item.get("spec", {})
    _set(spec, serviceAccountName="default", serviceAccount="default", enableServiceLinks=True)
    _set(spec, priority=0, preemptionPolicy="PreemptLowerPriority")
    item["status"] = {"phase": "Pending", "qosClass": _qos(spec)}


def _qos(spec: Object) -> str:
    found = [c.get("resources", {}) for c in spec.get("containers", [])]
    if not any(r.get("limits") or r.get("requests") for r in found):
        return "BestEffort"
    whole = all(
        quantity.parse(r.get("limits", {}).get(k, 0)) == quantity.parse(r.get("requests", {}).get(k, 1))
        for r in found
        for k in ("cpu", "memory")
    )
    return "Guaranteed" if whole else "Burstable"


def statefulset(item: Object) -> None:
    """A StatefulSet."""
    spec = item.get("spec", {})
    _set(spec, replicas=1, podManagementPolicy="OrderedReady", revisionHistoryLimit=10, serviceName="")
    if not spec["serviceName"]:
        del spec["serviceName"]
    _set(spec, updateStrategy={"type": "RollingUpdate"})
    _set(spec["updateStrategy"], type="RollingUpdate")
    if spec["updateStrategy"]["type"] == "RollingUpdate":
        _set(spec["updateStrategy"], rollingUpdate={"partition": 0})
    _set(spec, persistentVolumeClaimRetentionPolicy={})
    _set(spec["persistentVolumeClaimRetentionPolicy"], whenDeleted="Retain", whenScaled="Retain")
    for claim in spec.get("volumeClaimTemplates", []):
        claim |= {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "status": {"phase": "Pending"}}
        _set(claim.get("spec", {}), volumeMode="Filesystem")
    _template(spec)


def deployment(item: Object) -> None:
    """A Deployment."""
    spec = item.get("spec", {})
    _set(spec, replicas=1, revisionHistoryLimit=10, progressDeadlineSeconds=600, strategy={})
    _set(spec["strategy"], type="RollingUpdate")
    if spec["strategy"]["type"] == "RollingUpdate":
        _set(spec["strategy"], rollingUpdate={"maxSurge": "25%", "maxUnavailable": "25%"})
    _template(spec)


def _template(spec: Object) -> None:
    if isinstance(spec.get("template", {}).get("spec"), dict):
        pod_spec(spec["template"]["spec"])


def job(item: Object) -> None:
    """A Job; the labels and the selector come with its uid."""
    spec = item.get("spec", {})
    _set(spec, parallelism=1, completions=1, backoffLimit=6, completionMode="NonIndexed", suspend=False)
    _set(spec, podReplacementPolicy="TerminatingOrFailed", manualSelector=False)
    _template(spec)


def secret(item: Object) -> None:
    """A Secret: ``stringData`` is for writing only."""
    _set(item, type="Opaque")
    for key, value in item.pop("stringData", {}).items():
        item.setdefault("data", {})[key] = base64.b64encode(value.encode()).decode()


def service(item: Object) -> None:
    """A Service, with an address that leads nowhere."""
    spec = item.get("spec", {})
    _set(spec, type="ClusterIP", sessionAffinity="None", internalTrafficPolicy="Cluster")
    if spec["type"] != "ExternalName":
        _set(spec, clusterIP=f"10.96.{random.randrange(256)}.{random.randrange(1, 255)}")
        _set(spec, clusterIPs=[spec["clusterIP"]], ipFamilies=["IPv4"], ipFamilyPolicy="SingleStack")
    for port in spec.get("ports", []):
        _set(port, protocol="TCP", targetPort=port.get("port"))
        if spec["type"] in ("NodePort", "LoadBalancer"):
            _set(port, nodePort=random.randrange(30000, 32768))
    _set(item, status={"loadBalancer": {}})


def claim(item: Object) -> None:
    """A PersistentVolumeClaim."""
    _set(item.get("spec", {}), volumeMode="Filesystem")
    _set(item, status={"phase": "Pending"})


def namespace(item: Object) -> None:
    """A Namespace."""
    item.setdefault("metadata", {}).setdefault("labels", {})["kubernetes.io/metadata.name"] = item[
        "metadata"
    ].get("name", "")
    item["spec"] = {"finalizers": ["kubernetes"]}
    _set(item, status={"phase": "Active"})


def role_binding(item: Object) -> None:
    """A RoleBinding."""
    item.get("roleRef", {}).setdefault("apiGroup", "rbac.authorization.k8s.io")
    for subject in item.get("subjects", []):
        if subject.get("kind") != "ServiceAccount":
            _set(subject, apiGroup="rbac.authorization.k8s.io")


def network_policy(item: Object) -> None:
    """A NetworkPolicy."""
    spec = item.get("spec", {})
    _set(spec, policyTypes=["Ingress", *(["Egress"] if "egress" in spec else [])])
    for rule in [*spec.get("ingress", []), *spec.get("egress", [])]:
        for port in rule.get("ports", []):
            _set(port, protocol="TCP")


OF_KINDS = {
    "pods": pod,
    "statefulsets": statefulset,
    "deployments": deployment,
    "jobs": job,
    "secrets": secret,
    "services": service,
    "persistentvolumeclaims": claim,
    "namespaces": namespace,
    "rolebindings": role_binding,
    "clusterrolebindings": role_binding,
    "networkpolicies": network_policy,
}
