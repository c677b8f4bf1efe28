"""Who somebody is, and what the roles in the store allow them."""

import secrets
import time
from dataclasses import dataclass
from typing import Any

from kube.errors import ApiError, forbidden
from kube.resources import Resource
from kube.store import Store

Object = dict[str, Any]
EVERYTHING = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
# what everybody may who is signed in
BASIC = {"apiGroups": ["authorization.k8s.io"], "resources": ["*"], "verbs": ["create"]}


@dataclass(frozen=True)
class User:
    """Who sends a request."""

    name: str
    groups: tuple[str, ...] = ()

    @property
    def account(self) -> tuple[str, str] | None:
        """Namespace and name of a service account."""
        parts = self.name.split(":")
        return (parts[2], parts[3]) if parts[:2] == ["system", "serviceaccount"] else None


ADMIN = User("kubernetes-admin", ("system:masters", "system:authenticated"))


class Tokens:
    """Bearer tokens and whom they stand for. Opaque, where a real server's are signed."""

    def __init__(self) -> None:
        self._users: dict[str, tuple[User, float | None]] = {}

    def issue(self, user: User, seconds: float | None = None) -> str:
        """A new token, which may expire."""
        token = secrets.token_urlsafe(24)
        self._users[token] = user, seconds and time.monotonic() + seconds
        return token

    def of_account(self, namespace: str, name: str, seconds: float | None = None) -> str:
        """A new token of a service account."""
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        return self.issue(User(f"system:serviceaccount:{namespace}:{name}", groups), seconds)

    def user(self, header: str) -> User:
        """Whose ``Authorization`` this is; 401 for nobody's, and when it has expired."""
        scheme, _, token = header.strip().partition(" ")
        user, end = self._users.get(token, (None, None))
        if scheme.lower() != "bearer" or user is None or (end is not None and time.monotonic() > end):
            raise ApiError(401, "Unauthorized", "Unauthorized")
        return user

    def revoke(self, user_name: str) -> None:
        """No token of this user counts any longer."""
        self._users = {t: found for t, found in self._users.items() if found[0].name != user_name}


def rules(store: Store, user: User, namespace: str) -> list[Object]:
    """All that a user may do in a namespace, or in the whole cluster with ``""``."""
    if "system:masters" in user.groups:
        return [EVERYTHING]
    found = [BASIC]
    for plural in ("rolebindings", "clusterrolebindings") if namespace else ("clusterrolebindings",):
        for binding in store.list(plural, namespace if plural == "rolebindings" else ""):
            if any(_is(subject, user, binding) for subject in binding.get("subjects", [])):
                found += _role(store, binding).get("rules") or []
    return found


def _is(subject: Object, user: User, binding: Object) -> bool:
    if subject["kind"] == "ServiceAccount":
        where = subject.get("namespace") or binding["metadata"].get("namespace")
        return user.account == (where, subject["name"])
    return subject["name"] in (user.groups if subject["kind"] == "Group" else (user.name,))


def _role(store: Store, binding: Object) -> Object:
    ref = binding["roleRef"]
    plural = "roles" if ref["kind"] == "Role" else "clusterroles"
    where = binding["metadata"].get("namespace", "") if plural == "roles" else ""
    return store.find(plural, where, ref["name"]) or {}


def allows(rule: Object, verb: str, group: str, resource: str, name: str) -> bool:
    """Whether one rule covers a request; ``resource`` may be ``pods/log``."""

    def has(key: str, *wanted: str) -> bool:
        return any(w in rule.get(key, []) for w in ("*", *wanted))

    below = resource.partition("/")[2]
    named = rule.get("resourceNames")
    return (
        has("verbs", verb)
        and has("apiGroups", group)
        and has("resources", resource, *([f"*/{below}"] if below else []))
        and (not named or name in named)
    )


def allowed(
    store: Store, user: User, verb: str, group: str, resource: str, namespace: str, name: str
) -> bool:
    """Whether a user may do something."""
    return any(allows(rule, verb, group, resource, name) for rule in rules(store, user, namespace))


def check(
    store: Store, user: User, verb: str, resource: Resource, subresource: str, namespace: str, name: str
) -> None:
    """403 for what a user may not do."""
    what = f"{resource.plural}/{subresource}" if subresource else resource.plural
    if resource.plural == "namespaces" and name:
        namespace = name  # a role in a namespace may allow to read it
    if allowed(store, user, verb, resource.group, what, namespace, name):
        return
    where = f'in the namespace "{namespace}"' if namespace and resource.namespaced else "at the cluster scope"
    said = f'User "{user.name}" cannot {verb} resource "{what}" in API group "{resource.group}" {where}'
    raise forbidden(resource, name, said)
