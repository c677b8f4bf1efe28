"""What a real server refuses with 422 in any object: names, labels, missing fields, unknown choices.

The rules are the server's; its sentences are quoted from Kubernetes' sources as well as one remembers them.
"""

from typing import Any

from kube import schema, words
from kube.errors import Cause, bad_request, invalid
from kube.resources import Resource
from kube.validation_of import OF_CHANGES, OF_KINDS

Object = dict[str, Any]


def validate(item: Object, resource: Resource, before: Object | None = None) -> None:
    """Refuse a new or changed object."""
    causes = [*metadata(item["metadata"], resource), *_walk(item, schema.of(resource), "")]
    if not causes or all(c.reason != "FieldValueRequired" for c in causes):
        causes += OF_KINDS.get(resource.plural, lambda item: [])(item)
    if before is not None:
        causes += OF_CHANGES.get(resource.plural, lambda item, before: [])(item, before)
    if causes:
        raise invalid(resource, item["metadata"].get("name", ""), causes)


def identity(item: Object, resource: Resource, namespace: str, name: str | None) -> None:
    """Refuse an object whose kind, name or namespace is not what the address says."""
    if item.get("apiVersion", resource.api_version) != resource.api_version or item.get(
        "kind", resource.kind
    ) != (resource.kind):
        said = f"{item.get('apiVersion')}, Kind={item.get('kind')}"
        wanted = f"{resource.api_version}, Kind={resource.kind}"
        raise bad_request(f"the object provided is unrecognized: {said} is not {wanted}")
    meta = item.setdefault("metadata", {})
    if resource.namespaced:
        if meta.setdefault("namespace", namespace) != namespace:
            raise bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
    else:
        meta.pop("namespace", None)
    if name is not None and meta.setdefault("name", name) != name:
        raise bad_request("the name of the object does not match the name on the URL")
    item |= {"apiVersion": resource.api_version, "kind": resource.kind}


def metadata(meta: Object, resource: Resource, path: str = "metadata") -> list[Cause]:
    """Name, labels and annotations."""
    causes, name = [], meta.get("name", "")
    if not name:
        return [Cause(f"{path}.name", "Required value", "name or generateName is required")]
    as_label = resource.plural in words.NAMED_AS_LABELS
    pattern, longest = (words.LABEL, 63) if as_label else (words.SUBDOMAIN, 253)
    free = resource.group == "rbac.authorization.k8s.io"  # path segments: nearly anything
    if not free and (wrong := words.syntax(pattern, name, longest)):
        causes.append(Cause(f"{path}.name", "Invalid value", wrong, name))
    return (
        causes
        + labels(meta.get("labels", {}), f"{path}.labels")
        + keys(meta.get("annotations", {}), f"{path}.annotations")
    )


def labels(found: dict[str, str], path: str) -> list[Cause]:
    """Keys and values of labels."""
    causes = keys(found, path)
    for value in found.values():
        if wrong := words.syntax(words.VALUE, value, 63):
            causes.append(Cause(path, "Invalid value", wrong, value))
    return causes


def keys(found: dict[str, str], path: str) -> list[Cause]:
    """Keys of labels and annotations: ``name`` or ``domain/name``."""
    causes = []
    for key in found:
        prefix, slash, name = key.rpartition("/")
        wrong = words.syntax(words.KEY, name, 63)
        if wrong or (slash and words.syntax(words.SUBDOMAIN, prefix, 253)):
            causes.append(Cause(path, "Invalid value", wrong or "prefix part is invalid", key))
    return causes


def _walk(value: Any, node: schema.Node, path: str) -> list[Cause]:
    if path in ("status", "metadata"):  # ours to write, or looked at already
        return []
    if isinstance(value, list):
        entry = schema.resolve(node.get("items", {}))
        return [c for i, v in enumerate(value) for c in _walk(v, entry, f"{path}[{i}]")]
    if not isinstance(value, dict) or schema.is_free(node):
        return []
    causes = _required(value, node, path)
    if schema.short_name(node) == "ObjectMeta":
        causes += labels(value.get("labels", {}), f"{path}.labels")
    for key, inner in value.items():
        where = f"{path}.{key}" if path else key
        causes += _choice(inner, schema.short_name(node), key, where)
        causes += _walk(inner, schema.field(node, key) or {}, where)
    return causes


def _required(value: Object, node: schema.Node, path: str) -> list[Cause]:
    lacking = [key for key in node.get("required", []) if value.get(key) in (None, "", [])]
    return [Cause(f"{path}.{key}" if path else key, "Required value") for key in lacking]


def _choice(value: Any, kind: str, key: str, path: str) -> list[Cause]:
    if (kind, key) in words.CHOICES and value not in (allowed := words.CHOICES[kind, key]):
        listed = ", ".join(f'"{choice}"' for choice in allowed)
        return [Cause(path, "Unsupported value", f"supported values: {listed}", value)]
    if (kind, key) in words.MUST and value not in (allowed := words.MUST[kind, key]):
        return [Cause(path, "Invalid value", f"must be '{allowed[0]}' or '{allowed[1]}'", value)]
    if key == "operator" and kind in words.OPERATORS and value not in words.OPERATORS[kind][0]:
        return [Cause(path, "Invalid value", words.OPERATORS[kind][1], value)]
    return []
