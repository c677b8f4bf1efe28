"""What clients ask to learn which kinds there are: the API's lists, the version, and OpenAPI documents.

Of OpenAPI only what kubectl needs to leave validation to the server: the paths for patches.
"""

from typing import Any

from kube.resources import Resource, groups
from kube.schema import VERSION

Object = dict[str, Any]


def answer(path: str) -> Object | None:
    """The document at a path, or None."""
    parts = [p for p in path.split("/") if p]
    match parts:
        case ["version"]:
            major, minor = VERSION.split(".")
            return {"major": major, "minor": minor, "gitVersion": f"v{VERSION}.2", "platform": "linux/amd64"}
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        case ["apis"]:
            found = [_group(g, v) for g, v in groups() if g]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": found}
        case ["apis", group]:
            found = [_group(g, v) for g, v in groups() if g == group]
            return {"kind": "APIGroup", "apiVersion": "v1"} | found[0] if found else None
        case ["api", version]:
            return _list("", version)
        case ["apis", group, version]:
            return _list(group, version)
        case ["openapi", "v3"]:
            found = [f"apis/{g}/{v}" if g else f"api/{v}" for g, v in groups()]
            return {"paths": {p: {"serverRelativeURL": f"/openapi/v3/{p}?hash=1"} for p in found}}
        case ["openapi", "v3", "api", version]:
            return _openapi("", version)
        case ["openapi", "v3", "apis", group, version]:
            return _openapi(group, version)
    return None


def _group(group: str, version: str) -> Object:
    shown = {"groupVersion": f"{group}/{version}", "version": version}
    return {"name": group, "versions": [shown], "preferredVersion": shown}


def _list(group: str, version: str) -> Object | None:
    found = groups().get((group, version))
    if not found:
        return None
    lines = [line for r in found for line in _lines(r)]
    shown = found[0].api_version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": shown, "resources": lines}


def _lines(r: Resource) -> list[Object]:
    line = {"name": r.plural, "singularName": r.kind.lower(), "namespaced": r.namespaced, "kind": r.kind}
    lines = [line | {"verbs": list(r.verbs)} | ({"shortNames": list(r.short)} if r.short else {})]
    other = {
        "scale": {"kind": "Scale", "group": "autoscaling", "version": "v1"},
        "eviction": {"kind": "Eviction", "group": "policy", "version": "v1"},
        "token": {"kind": "TokenRequest", "group": "authentication.k8s.io", "version": "v1"},
    }
    for below in r.subresources:
        verbs = {"log": ["get"], "eviction": ["create"], "binding": ["create"], "token": ["create"]}
        more = other.get(below, {"kind": r.kind}) | {"verbs": verbs.get(below, ["get", "patch", "update"])}
        name = f"{r.plural}/{below}"
        lines.append({"name": name, "singularName": "", "namespaced": r.namespaced} | more)
    return lines


def _openapi(group: str, version: str) -> Object | None:
    paths = {}
    for r in groups().get((group, version), []):
        start = f"/apis/{group}/{version}" if group else f"/api/{version}"
        where = "/namespaces/{namespace}" if r.namespaced else ""
        operation = {
            "x-kubernetes-action": "patch",
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": r.kind},
            "parameters": [
                {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
                for name in ("dryRun", "fieldManager", "fieldValidation", "force")
            ],
            "responses": {"200": {"description": "OK"}},
        }
        paths[f"{start}{where}/{r.plural}/{{name}}"] = {"patch": operation}
    info = {"title": "Kubernetes", "version": f"v{VERSION}.2"}
    return (
        {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": {}}} if paths else None
    )
