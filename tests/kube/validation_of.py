"""What a real server refuses in objects of one kind, and in changes of them."""

import base64
import json
from typing import Any

from kube import quantity, selecting, words
from kube.errors import Cause
from kube.validation_pod import pod_spec

Object = dict[str, Any]
LARGEST = 1024 * 1024
MAY_CHANGE = {
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
}
STATEFULSET = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
    "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)
POD = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
SECRET_NEEDS = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
}


def pod(item: Object) -> list[Cause]:
    """A pod of its own."""
    return pod_spec(item["spec"], "spec")


def workload(item: Object) -> list[Cause]:
    """What has a selector and a template: StatefulSets and Deployments."""
    spec = item["spec"]
    template, causes = spec["template"], []
    found, selector = template.get("metadata", {}).get("labels", {}), spec["selector"]
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        causes.append(Cause("spec.selector", "Invalid value", "empty selector is invalid", selector))
    elif not selecting.matches(selector, found):
        said = "`selector` does not match template `labels`"
        causes.append(Cause("spec.template.metadata.labels", "Invalid value", said, found))
    if spec.get("replicas", 1) < 0:
        said = "must be greater than or equal to 0"
        causes.append(Cause("spec.replicas", "Invalid value", said, spec["replicas"]))
    claims = [c["metadata"]["name"] for c in spec.get("volumeClaimTemplates", [])]
    causes += pod_spec(template["spec"], "spec.template.spec", claims)
    if (policy := template["spec"].get("restartPolicy", "Always")) != "Always":
        said = 'supported values: "Always"'
        causes.append(Cause("spec.template.spec.restartPolicy", "Unsupported value", said, policy))
    return causes


def job(item: Object) -> list[Cause]:
    """A job."""
    spec, causes = item["spec"], []
    for key in (
        "parallelism",
        "completions",
        "backoffLimit",
        "activeDeadlineSeconds",
        "ttlSecondsAfterFinished",
    ):
        if spec.get(key, 0) < 0:
            said = "must be greater than or equal to 0"
            causes.append(Cause(f"spec.{key}", "Invalid value", said, spec[key]))
    policy = spec["template"]["spec"].get("restartPolicy", "Always")
    if policy == "Always":
        said = 'valid values: "OnFailure", "Never"'
        causes.append(Cause("spec.template.spec.restartPolicy", "Required value", said))
    return causes + pod_spec(spec["template"]["spec"], "spec.template.spec")


def data(item: Object) -> list[Cause]:
    """The entries of a secret or config map."""
    found = item.get("data", {})
    causes = [
        Cause(f"data[{key}]", "Invalid value", wrong, key)
        for key in [*found, *item.get("binaryData", {})]
        if (wrong := words.syntax(words.DATA_KEY, key, 253))
    ]
    for key in SECRET_NEEDS.get(item.get("type", ""), ()):
        if key not in found:
            causes.append(Cause(f"data[{key}]", "Required value"))
    return causes


def secret(item: Object) -> list[Cause]:
    """A secret."""
    size = sum(len(base64.b64decode(value)) for value in item.get("data", {}).values())
    return data(item) + _size("data", size)


def config_map(item: Object) -> list[Cause]:
    """A config map."""
    size = sum(len(v.encode()) for v in item.get("data", {}).values())
    size += sum(len(base64.b64decode(v)) for v in item.get("binaryData", {}).values())
    return data(item) + _size("", size)


def _size(path: str, size: int) -> list[Cause]:
    return [Cause(path, "Too long", f"may not be more than {LARGEST} bytes")] if size > LARGEST else []


def service(item: Object) -> list[Cause]:
    """A service."""
    spec, causes = item["spec"], []
    if not spec.get("ports") and spec.get("clusterIP") != "None" and spec.get("type") != "ExternalName":
        causes.append(Cause("spec.ports", "Required value"))
    for i, port in enumerate(spec.get("ports", [])):
        if not 0 < port["port"] < 65536:
            said = "must be between 1 and 65535, inclusive"
            causes.append(Cause(f"spec.ports[{i}].port", "Invalid value", said, port["port"]))
        if len(spec["ports"]) > 1 and not port.get("name"):
            causes.append(Cause(f"spec.ports[{i}].name", "Required value"))
    return causes


def claim(item: Object) -> list[Cause]:
    """A PersistentVolumeClaim."""
    spec, causes = item["spec"], []
    modes = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
    if not spec.get("accessModes"):
        causes.append(Cause("spec.accessModes", "Required value", "at least 1 access mode is required"))
    for i, mode in enumerate(spec.get("accessModes", [])):
        if mode not in modes:
            said = "supported values: " + ", ".join(f'"{m}"' for m in modes)
            causes.append(Cause(f"spec.accessModes[{i}]", "Unsupported value", said, mode))
    size = spec.get("resources", {}).get("requests", {}).get("storage")
    if size is None:
        causes.append(Cause("spec.resources[storage]", "Required value"))
    elif quantity.parse(size) <= 0:
        said = "must be greater than zero"
        causes.append(Cause("spec.resources[storage]", "Invalid value", said, size))
    return causes


def role_binding(item: Object) -> list[Cause]:
    """A RoleBinding."""
    if (kind := item["roleRef"]["kind"]) not in ("Role", "ClusterRole"):
        said = 'supported values: "Role", "ClusterRole"'
        return [Cause("roleRef.kind", "Unsupported value", said, kind)]
    return []


def budget(item: Object) -> list[Cause]:
    """A PodDisruptionBudget."""
    spec = item.get("spec", {})
    if "minAvailable" in spec and "maxUnavailable" in spec:
        return [Cause("spec", "Invalid value", "minAvailable and maxUnavailable cannot be both set", spec)]
    return []


def _immutable(*fields: str):
    def causes(item: Object, before: Object) -> list[Cause]:
        new, old = item["spec"], before["spec"]
        changed = [key for key in fields if new.get(key) != old.get(key)]
        return [Cause(f"spec.{k}", "Invalid value", "field is immutable", new.get(k)) for k in changed]

    return causes


def statefulset_change(item: Object, before: Object) -> list[Cause]:
    """All but a few fields stay."""
    new, old = item["spec"], before["spec"]
    changed = {key for key in {*new, *old} if new.get(key) != old.get(key)}
    return [Cause("spec", "Forbidden", STATEFULSET)] if changed - MAY_CHANGE else []


def pod_change(item: Object, before: Object) -> list[Cause]:
    """Nearly all stays."""
    same = json.dumps(_fixed(item["spec"]), sort_keys=True) == json.dumps(
        _fixed(before["spec"]), sort_keys=True
    )
    return [] if same else [Cause("spec", "Forbidden", POD)]


def _fixed(spec: Object) -> Object:
    free = ("activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds")
    kept = {key: value for key, value in spec.items() if key not in free}
    for key in ("containers", "initContainers"):
        kept[key] = [{k: v for k, v in c.items() if k != "image"} for c in spec.get(key, [])]
    return kept


def data_change(item: Object, before: Object) -> list[Cause]:
    """A secret's type stays, and with ``immutable`` the rest, too."""
    causes = []
    if item.get("type") != before.get("type"):
        causes.append(Cause("type", "Invalid value", "field is immutable", item.get("type")))
    if before.get("immutable"):
        said = "field is immutable when `immutable` is set"
        for key in ("data", "immutable"):
            if item.get(key) != before.get(key):
                causes.append(Cause(key, "Forbidden", said))
    return causes


def binding_change(item: Object, before: Object) -> list[Cause]:
    """Whom a binding binds may change, but not to which role."""
    if item["roleRef"] != before["roleRef"]:
        return [Cause("roleRef", "Invalid value", "cannot change roleRef", item["roleRef"])]
    return []


OF_KINDS = {
    "pods": pod,
    "statefulsets": workload,
    "deployments": workload,
    "jobs": job,
    "secrets": secret,
    "configmaps": config_map,
    "services": service,
    "persistentvolumeclaims": claim,
    "rolebindings": role_binding,
    "poddisruptionbudgets": budget,
}
OF_CHANGES = {
    "pods": pod_change,
    "statefulsets": statefulset_change,
    "deployments": _immutable("selector"),
    "jobs": _immutable("selector", "template", "completionMode"),
    "secrets": data_change,
    "configmaps": data_change,
    "rolebindings": binding_change,
    "clusterrolebindings": binding_change,
}
