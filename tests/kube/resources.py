"""Which kinds of objects the server knows, and what each may be asked."""

from collections.abc import Iterator
from dataclasses import dataclass

WRITE = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class Resource:
    """One kind of object, as discovery shows it.

    Parameters
    ----------
    plural, kind, group, version
        ``statefulsets``, ``StatefulSet``, ``apps``, ``v1``; the group of core objects is empty.
    namespaced
        Whether an object lives in a namespace.
    short
        What ``kubectl`` calls it for short.
    subresources
        What lies below an object besides ``status``.
    verbs
        What may be done; questions about access can only be created.
    """

    plural: str
    kind: str
    group: str = ""
    version: str = "v1"
    namespaced: bool = True
    short: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ("status",)
    verbs: tuple[str, ...] = WRITE

    @property
    def api_version(self) -> str:
        """``v1`` or ``apps/v1``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """The name in messages: ``pods`` or ``statefulsets.apps``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def qualified_kind(self) -> str:
        """The kind in messages: ``Pod`` or ``StatefulSet.apps``."""
        return f"{self.kind}.{self.group}" if self.group else self.kind


BATCH, APPS, RBAC = "batch", "apps", "rbac.authorization.k8s.io"
AUTH = "authorization.k8s.io"
NONE: tuple[str, ...] = ()

RESOURCES = {
    r.plural: r
    for r in (
        Resource("namespaces", "Namespace", namespaced=False, short=("ns",)),
        Resource("nodes", "Node", namespaced=False, short=("no",)),
        Resource("pods", "Pod", short=("po",), subresources=("status", "log", "eviction", "binding")),
        Resource("secrets", "Secret", subresources=NONE),
        Resource("configmaps", "ConfigMap", short=("cm",), subresources=NONE),
        Resource("serviceaccounts", "ServiceAccount", short=("sa",), subresources=("token",)),
        Resource("services", "Service", short=("svc",)),
        Resource("events", "Event", short=("ev",), subresources=NONE),
        Resource("persistentvolumeclaims", "PersistentVolumeClaim", short=("pvc",)),
        Resource("resourcequotas", "ResourceQuota", short=("quota",)),
        Resource("statefulsets", "StatefulSet", APPS, short=("sts",), subresources=("status", "scale")),
        Resource("deployments", "Deployment", APPS, short=("deploy",), subresources=("status", "scale")),
        Resource("jobs", "Job", BATCH),
        Resource(
            "networkpolicies", "NetworkPolicy", "networking.k8s.io", short=("netpol",), subresources=NONE
        ),
        Resource("poddisruptionbudgets", "PodDisruptionBudget", "policy", short=("pdb",)),
        Resource("roles", "Role", RBAC, subresources=NONE),
        Resource("rolebindings", "RoleBinding", RBAC, subresources=NONE),
        Resource("clusterroles", "ClusterRole", RBAC, namespaced=False, subresources=NONE),
        Resource("clusterrolebindings", "ClusterRoleBinding", RBAC, namespaced=False, subresources=NONE),
        Resource(
            "selfsubjectaccessreviews", "SelfSubjectAccessReview", AUTH, "v1", False, (), NONE, ("create",)
        ),
        Resource(
            "selfsubjectrulesreviews", "SelfSubjectRulesReview", AUTH, "v1", False, (), NONE, ("create",)
        ),
    )
}


def groups() -> dict[tuple[str, str], list[Resource]]:
    """The kinds of each group and version."""
    found: dict[tuple[str, str], list[Resource]] = {}
    for resource in RESOURCES.values():
        found.setdefault((resource.group, resource.version), []).append(resource)
    return found


def stored() -> Iterator[Resource]:
    """Kinds whose objects are kept."""
    return (r for r in RESOURCES.values() if "get" in r.verbs)
