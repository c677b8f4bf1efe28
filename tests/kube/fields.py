"""Who owns which field: ``metadata.managedFields``, as sets of paths.

A path is a tuple of the keys that ``FieldsV1`` writes: ``f:spec``, ``k:{"name":"x"}`` for an entry of a list
that is a map. Writes by controllers and kubelets are not recorded.
"""

import json
from collections.abc import Iterable
from typing import Any

from kube import schema
from kube.store import now

Object = dict[str, Any]
Path = tuple[str, ...]
# the server's, not anybody's
UNOWNED = {("f:apiVersion",), ("f:kind",)} | {
    ("f:metadata", f"f:{key}")
    for key in (
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "generation",
        "managedFields",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
    )
}


def leaves(value: Any, node: schema.Node, path: Path = ()) -> dict[Path, Any]:
    """Every leaf of an object and its value; entries of map lists are leaves too, with their keys."""
    if isinstance(value, dict) and value and node.get("x-kubernetes-map-type") != "atomic":
        found = {}
        for key, inner in value.items():
            found |= leaves(inner, schema.field(node, key) or {}, (*path, f"f:{key}"))
        return {p: v for p, v in found.items() if p not in UNOWNED and p[:2] not in UNOWNED}
    keys = schema.list_keys(node)
    if isinstance(value, list) and value and keys:
        found = {}
        for entry in value:
            here = (*path, entry_key(entry, keys))
            found[(*here, ".")] = {key: entry.get(key, DEFAULT_KEYS.get(key)) for key in keys}
            found |= leaves(entry, schema.resolve(node["items"]), here)
        return found
    return {path: value}


DEFAULT_KEYS = {"protocol": "TCP"}


def entry_key(entry: Object, keys: list[str]) -> str:
    """What names an entry of a list: ``k:{"name":"x"}``."""
    named = {key: entry.get(key, DEFAULT_KEYS.get(key)) for key in sorted(keys)}
    return "k:" + json.dumps(named, separators=(",", ":"))


def to_v1(paths: Iterable[Path]) -> Object:
    """The nested objects of ``FieldsV1``."""
    tree: Object = {}
    for path in sorted(paths):
        here = tree
        for key in path:
            here = here.setdefault(key, {})
    return tree


def from_v1(tree: Object, path: Path = ()) -> set[Path]:
    """The paths that end in an empty object."""
    if not tree:
        return {path} if path else set()
    return {p for key, inner in tree.items() for p in from_v1(inner, (*path, key))}


def dotted(path: Path) -> str:
    """As in messages: ``.spec.containers[name="x"].image``."""
    text = ""
    for key in path:
        if key.startswith("f:"):
            text += f".{key[2:]}"
        elif key.startswith("k:"):
            pairs = json.loads(key[2:]).items()
            text += "[" + ",".join(f"{k}={json.dumps(v)}" for k, v in pairs) + "]"
    return text


class Owners:
    """The owners of one object's fields, by manager and operation."""

    def __init__(self, item: Object):
        self._version = item.get("apiVersion", "v1")
        self.sets: dict[tuple[str, str], set[Path]] = {}
        self._times: dict[tuple[str, str], str] = {}
        for entry in item.get("metadata", {}).get("managedFields", []):
            who = entry["manager"], entry["operation"]
            self.sets[who] = from_v1(entry["fieldsV1"])
            self._times[who] = entry["time"]

    def own(self, who: tuple[str, str], paths: set[Path]) -> None:
        """These are the fields of this owner now."""
        if self.sets.get(who) != paths:
            self.sets[who], self._times[who] = paths, now()

    def others(self, who: tuple[str, str]) -> dict[tuple[str, str], set[Path]]:
        """All but one."""
        return {other: paths for other, paths in self.sets.items() if other != who}

    def write(self, item: Object) -> None:
        """Put them into the object."""
        item["metadata"]["managedFields"] = [
            {
                "manager": manager,
                "operation": operation,
                "apiVersion": self._version,
                "time": self._times[manager, operation],
                "fieldsType": "FieldsV1",
                "fieldsV1": to_v1(paths),
            }
            for (manager, operation), paths in self.sets.items()
            if paths
        ]


def updated(item: Object, before: Object | None, manager: str, node: schema.Node) -> None:
    """Record a create, update or patch: who changed a field, owns it."""
    owners = Owners(before or item)
    old = leaves(before, node) if before else {}
    new = leaves(item, node)
    changed = {path for path, value in new.items() if path not in old or old[path] != value}
    who = manager, "Update"
    for other, paths in owners.others(who).items():
        owners.own(other, {p for p in paths - changed if p in new})
    owners.own(who, {p for p in owners.sets.get(who, set()) | changed if p in new})
    owners.write(item)
