"""From a method and a path to a verb and what it is about."""

from dataclasses import dataclass

from kube.errors import ApiError
from kube.resources import RESOURCES, Resource

VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}


@dataclass(frozen=True)
class Asked:
    """What a request is about."""

    verb: str
    resource: Resource | None
    namespace: str
    name: str
    below: str
    query: dict[str, str]


def parse(method: str, path: str, query: dict[str, str]) -> Asked:
    """Read a path; 404 for what no kind has."""
    parts = [p for p in path.split("/") if p]
    missing = ApiError(404, "NotFound", "the server could not find the requested resource")
    if parts[:2] == ["api", "v1"]:
        group, rest = "", parts[2:]
    elif parts[:1] == ["apis"] and len(parts) > 2:
        group, rest = parts[1], parts[3:]
    else:
        raise missing
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces" and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    resource = RESOURCES.get(rest[0]) if rest else None
    if resource is None or resource.group != group:
        raise missing
    name, below = [*rest[1:], "", ""][:2]
    if below and below not in resource.subresources:
        raise missing
    verb = _verb(method, name, query)
    if verb not in resource.verbs:
        said = "the server does not allow this method on the requested resource"
        raise ApiError(405, "MethodNotAllowed", said)
    return Asked(verb, resource, namespace, name, below, query)


def _verb(method: str, name: str, query: dict[str, str]) -> str:
    if method == "GET":
        if query.get("watch") in ("true", "1", "True"):
            return "watch"
        return "get" if name else "list"
    if method == "DELETE":
        return "delete" if name else "deletecollection"
    return VERBS[method]
