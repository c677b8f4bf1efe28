"""The other patches: JSON patch, merge patch, and strategic merge patch by the schema's merge keys."""

from typing import Any

from kube import schema
from kube.errors import ApiError, bad_request
from kube.store import copy

JSON, MERGE = "application/json-patch+json", "application/merge-patch+json"
STRATEGIC, APPLY = "application/strategic-merge-patch+json", "application/apply-patch+yaml"


def patch(item: dict, change: Any, kind: str, node: schema.Node) -> dict:
    """The changed object."""
    if kind == JSON:
        return json_patch(copy(item), change)
    if kind == MERGE:
        return merge(copy(item), change)
    if kind == STRATEGIC:
        return strategic(copy(item), change, node)
    said = (
        f"the body of the request was in an unknown format - accepted media types include: {JSON}, {MERGE}, "
    )
    raise ApiError(415, "UnsupportedMediaType", said + f"{STRATEGIC}, {APPLY}")


def merge(value: Any, change: Any) -> Any:
    """RFC 7386."""
    if not isinstance(change, dict):
        return change
    found = value if isinstance(value, dict) else {}
    for key, inner in change.items():
        if inner is None:
            found.pop(key, None)
        else:
            found[key] = merge(found.get(key), inner)
    return found


def strategic(value: Any, change: Any, node: schema.Node) -> Any:
    """As `merge`, but lists with a merge key entry by entry; ``$patch``, ``$retainKeys`` and deletions."""
    if not isinstance(change, dict):
        return change
    if change.get("$patch") == "replace":
        return {key: inner for key, inner in change.items() if key != "$patch"}
    found = value if isinstance(value, dict) else {}
    if "$retainKeys" in change:
        found = {key: inner for key, inner in found.items() if key in change["$retainKeys"]}
    for key, inner in change.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            name = key.partition("/")[2]
            found[name] = [v for v in found.get(name, []) if v not in inner]
        elif inner is None:
            found.pop(key, None)
        elif not key.startswith("$"):
            found[key] = _field(found.get(key), inner, schema.field(node, key) or {})
    return found


def _field(value: Any, change: Any, node: schema.Node) -> Any:
    if not isinstance(change, list) or node.get("x-kubernetes-patch-strategy", "").find("merge") < 0:
        return strategic(value, change, node)
    key = node.get("x-kubernetes-patch-merge-key")
    if key is None:
        return [*(value or []), *(v for v in change if v not in (value or []))]
    if any(entry.get("$patch") == "replace" for entry in change):
        return [entry for entry in change if "$patch" not in entry]
    found = {entry.get(key): entry for entry in value or []}
    for entry in change:
        if entry.get("$patch") == "delete":
            found.pop(entry.get(key), None)
        else:
            found[entry.get(key)] = strategic(found.get(entry.get(key)), entry, schema.resolve(node["items"]))
    return list(found.values())


def json_patch(item: Any, steps: list[dict]) -> Any:
    """RFC 6902."""
    for step in steps:
        keys = [k.replace("~1", "/").replace("~0", "~") for k in step["path"].split("/")[1:]]
        if step["op"] in ("move", "copy"):
            origin = [k.replace("~1", "/").replace("~0", "~") for k in step["from"].split("/")[1:]]
            step = step | {"op": "add", "value": copy(_at(item, origin)), "was": step["op"]}
            if step["was"] == "move":
                _remove(*_parent(item, origin))
        _step(item, step, keys)
    return item


def _step(item: Any, step: dict, keys: list[str]) -> None:
    holder, key = _parent(item, keys)
    match step["op"]:
        case "add" if isinstance(holder, list):
            holder.insert(len(holder) if key == "-" else int(key), step["value"])
        case "add" | "replace":
            if step["op"] == "replace":
                _at(holder, [key])
            holder[int(key) if isinstance(holder, list) else key] = step["value"]
        case "remove":
            _remove(holder, key)
        case "test":
            if _at(holder, [key]) != step["value"]:
                said = f"testing value {step['path']} failed"
                raise ApiError(
                    422, "Invalid", f"the server rejected our request due to an error in our request: {said}"
                )


def _parent(item: Any, keys: list[str]) -> tuple[Any, str]:
    return _at(item, keys[:-1]), keys[-1]


def _remove(holder: Any, key: str) -> None:
    _at(holder, [key])
    del holder[int(key) if isinstance(holder, list) else key]


def _at(item: Any, keys: list[str]) -> Any:
    for key in keys:
        try:
            item = item[int(key)] if isinstance(item, list) else item[key]
        except (KeyError, IndexError, ValueError, TypeError):
            raise ApiError(
                422, "Invalid", "the server rejected our request due to an error in our request"
            ) from None
    return item


def parsed(change: Any, kind: str) -> Any:
    """Refuse what is not of the shape that the kind of patch has."""
    if kind == JSON and not isinstance(change, list):
        raise bad_request(
            "error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch"
        )
    return change
