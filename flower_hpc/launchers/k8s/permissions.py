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


def role(name: str, namespace: str | None = None) -> Manifest:
    """The Role that is enough for sites whose nodes stand by."""
    rules = [
        {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}
        for (group, resource), verbs in NEEDED.items()
    ]
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    kind = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role"}
    return kind | {"metadata": metadata, "rules": rules}


def lacking(rules: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """What of :data:`NEEDED` a namespace's rules do not allow, such as ``delete statefulsets.apps``.

    Parameters
    ----------
    rules : iterable of mapping
        ``resourceRules`` of a SelfSubjectRulesReview.
    """
    # rules for single objects by name are none for objects that are not there yet
    known = [rule for rule in rules if not rule.get("resourceNames")]
    for (group, resource), verbs in NEEDED.items():
        for verb in verbs:
            if not any(_allows(rule, group, resource, verb) for rule in known):
                yield f"{verb} {resource}{f'.{group}' if group else ''}"


def _allows(rule: Mapping[str, Any], group: str, resource: str, verb: str) -> bool:
    asked = {"apiGroups": group, "resources": resource, "verbs": verb}
    return all({word, "*"} & set(rule.get(key) or ()) for key, word in asked.items())
