"""What a user must be allowed to do in a namespace: as a Role, and as a question to the cluster."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .place import Manifest

OBJECTS = ("create", "patch", "delete")
NEEDED: Mapping[tuple[str, str], Sequence[str]] = {
    ("", "secrets"): OBJECTS,
    ("", "serviceaccounts"): OBJECTS,
    ("networking.k8s.io", "networkpolicies"): OBJECTS,
    ("policy", "poddisruptionbudgets"): OBJECTS,
    ("apps", "statefulsets"): OBJECTS,
    ("", "pods"): ("list", "watch", "delete", "deletecollection"),
    ("", "pods/log"): ("get",),
    ("", "events"): ("list",),
}
"""By group and resource; all of them within the site's namespace."""
FOR_JOBS: Mapping[tuple[str, str], Sequence[str]] = {
    ("batch", "jobs"): ("create", "get", "delete", "deletecollection"),
    ("rbac.authorization.k8s.io", "roles"): OBJECTS,
    ("rbac.authorization.k8s.io", "rolebindings"): OBJECTS,
}
"""Beyond these, where rounds are jobs: what SuperNodes may do, and to let them."""


def needed(*, jobs: bool) -> Mapping[tuple[str, str], Sequence[str]]:
    """All that is needed, for rounds as jobs or for nodes that stand by."""
    return {**NEEDED, **FOR_JOBS} if jobs else NEEDED


def role(name: str, namespace: str | None = None, *, jobs: bool = False) -> Manifest:
    """The Role that is enough for sites whose nodes stand by, or with ``jobs`` for all."""
    rules = [
        {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}
        for (group, resource), verbs in needed(jobs=jobs).items()
    ]
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    kind = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role"}
    return kind | {"metadata": metadata, "rules": rules}


def lacking(rules: Iterable[Mapping[str, Any]], *, jobs: bool = False) -> Iterator[str]:
    """What a namespace's rules do not allow of what is needed, such as ``delete statefulsets.apps``.

    Parameters
    ----------
    rules : iterable of mapping
        ``resourceRules`` of a SelfSubjectRulesReview.
    jobs : bool
        Whether rounds are to be jobs; default False.
    """
    # rules for single objects by name are none for objects that are not there yet
    known = [rule for rule in rules if not rule.get("resourceNames")]
    for (group, resource), verbs in needed(jobs=jobs).items():
        for verb in verbs:
            if not any(_allows(rule, group, resource, verb) for rule in known):
                yield f"{verb} {resource}{f'.{group}' if group else ''}"


def _allows(rule: Mapping[str, Any], group: str, resource: str, verb: str) -> bool:
    asked = {"apiGroups": group, "resources": resource, "verbs": verb}
    return all({word, "*"} & set(rule.get(key) or ()) for key, word in asked.items())
