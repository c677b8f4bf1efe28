"""What a new object must meet besides being valid: its namespace, its service account, quotas."""

from decimal import Decimal
from typing import Any

from kube import quantity
from kube.defaults import suffix
from kube.errors import forbidden, not_found
from kube.resources import RESOURCES, Resource
from kube.store import Store

Object = dict[str, Any]
ACCOUNT_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
PRIORITIES = {
    "system-cluster-critical": 2000000000,
    "system-node-critical": 2000001000,
    "high": 1000,
    "low": -10,
}
COUNTED = {"pods": "pods", "secrets": "secrets", "configmaps": "configmaps", "services": "services"}
COUNTED |= {"persistentvolumeclaims": "persistentvolumeclaims", "resourcequotas": "resourcequotas"}


def admit(store: Store, item: Object, resource: Resource) -> None:
    """Refuse or complete a new object, before it is validated."""
    meta = item["metadata"]
    if resource.namespaced:
        _namespace(store, meta["namespace"], meta.get("name", ""), resource)
    if resource.plural == "pods" and "spec" in item:
        _account(store, item)
        _priority(item)
        _tolerate(item["spec"])


def _namespace(store: Store, namespace: str, name: str, resource: Resource) -> None:
    found = store.find("namespaces", "", namespace)
    if found is None:
        raise not_found(RESOURCES["namespaces"], namespace)
    if "deletionTimestamp" in found["metadata"]:
        why = f"unable to create new content in namespace {namespace} because it is being terminated"
        error = forbidden(resource, name, why)
        cause = {"reason": "NamespaceTerminating", "field": "metadata.namespace"}
        error.details["causes"] = [cause | {"message": f"namespace {namespace} is being terminated"}]
        raise error


def _account(store: Store, pod: Object) -> None:
    spec, meta = pod["spec"], pod["metadata"]
    name, where = spec["serviceAccountName"], meta["namespace"]
    account = store.find("serviceaccounts", where, name)
    if account is None:
        why = f'error looking up service account {where}/{name}: serviceaccount "{name}" not found'
        raise forbidden(RESOURCES["pods"], meta.get("name", ""), why)
    mount = spec.get("automountServiceAccountToken", account.get("automountServiceAccountToken", True))
    if mount:
        _mount_token(spec)


def _mount_token(spec: Object) -> None:
    name = f"kube-api-access-{suffix()}"
    free = [
        c
        for c in [*spec.get("initContainers", []), *spec.get("containers", [])]
        if all(m["mountPath"] != ACCOUNT_FOLDER for m in c.get("volumeMounts", []))
    ]
    for container in free:
        mount = {"name": name, "mountPath": ACCOUNT_FOLDER, "readOnly": True}
        container.setdefault("volumeMounts", []).append(mount)
    field = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    ca = {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": ca},
        {"downwardAPI": {"items": [field]}},
    ]
    if free:
        volume = {"name": name, "projected": {"defaultMode": 0o644, "sources": sources}}
        spec.setdefault("volumes", []).append(volume)


def _priority(pod: Object) -> None:
    name = pod["spec"].get("priorityClassName")
    if name and name not in PRIORITIES:
        why = f"no PriorityClass with name {name} was found"
        raise forbidden(RESOURCES["pods"], pod["metadata"].get("name", ""), why)
    if name:
        pod["spec"]["priority"] = PRIORITIES[name]


def _tolerate(spec: Object) -> None:
    found = spec.setdefault("tolerations", [])
    for what in ("not-ready", "unreachable"):
        key = f"node.kubernetes.io/{what}"
        if all(t.get("key") not in (key, None) for t in found):
            one = {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
            found.append(one)


def uses(item: Object, plural: str) -> dict[str, Decimal]:
    """What an object counts for in a quota."""
    one, found = Decimal(1), {}
    if plural in COUNTED:
        found[COUNTED[plural]] = one
    group = RESOURCES[plural].group
    found[f"count/{plural}" + (f".{group}" if group else "")] = one
    if plural == "pods" and item.get("status", {}).get("phase") not in ("Failed", "Succeeded"):
        for container in item["spec"]["containers"]:
            for kind, amounts in container.get("resources", {}).items():
                for name, amount in amounts.items() if kind in ("requests", "limits") else ():
                    key = f"{kind}.{name}"
                    found[key] = found.get(key, Decimal(0)) + quantity.parse(amount)
        for name in ("cpu", "memory"):
            if f"requests.{name}" in found:
                found[name] = found[f"requests.{name}"]
    elif plural == "pods":
        return {}
    if plural == "persistentvolumeclaims":
        found["requests.storage"] = quantity.parse(item["spec"]["resources"]["requests"]["storage"])
    return found


def used(store: Store, quota: Object) -> dict[str, Decimal]:
    """What counts towards a quota now."""
    hard = quota["spec"].get("hard", {})
    total = dict.fromkeys(hard, Decimal(0))
    for plural in RESOURCES:
        if any(_concerns(key, plural) for key in hard):
            for item in store.list(plural, quota["metadata"]["namespace"]):
                for key, amount in uses(item, plural).items():
                    if key in total:
                        total[key] += amount
    return total


def _concerns(key: str, plural: str) -> bool:
    compute = key.split(".")[0] in ("requests", "limits", "cpu", "memory")
    return (
        key in (plural, RESOURCES[plural].qualified)
        or key.startswith(f"count/{plural}")
        or (compute and plural in ("pods", "persistentvolumeclaims"))
    )


def check_quotas(store: Store, item: Object, resource: Resource) -> None:
    """403 for what would exceed a quota, or does not say how much it needs of what is limited."""
    meta = item["metadata"]
    for quota in store.list("resourcequotas", meta["namespace"]) if resource.namespaced else []:
        name, hard = quota["metadata"]["name"], quota["spec"].get("hard", {})
        asked = {k: v for k, v in uses(item, resource.plural).items() if k in hard}
        needed = {"cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"}
        if resource.plural == "pods" and (silent := sorted((needed & set(hard)) - set(asked))):
            why = f"failed quota: {name}: must specify " + "; ".join(
                f"{key} for: {','.join(c['name'] for c in item['spec']['containers'])}" for key in silent
            )
            raise forbidden(resource, meta["name"], why)
        if not asked:
            continue
        now = used(store, quota)
        over = sorted(k for k, v in asked.items() if now[k] + v > quantity.parse(hard[k]))
        if over:
            requested, used_now, limited = (
                ",".join(f"{k}={amounts[k]}" for k in over)
                for amounts in (_written(asked), _written(now), hard)
            )
            said = f"exceeded quota: {name}, requested: {requested}, used: {used_now}, limited: {limited}"
            raise forbidden(resource, meta["name"], said)


def _written(amounts: dict[str, Decimal]) -> dict[str, str]:
    return {key: quantity.write(amount) for key, amount in amounts.items()}
