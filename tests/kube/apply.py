"""Server-side apply: merging by the schema, ownership, conflicts, and removal of what is applied no more."""

import json
from typing import Any

from kube import schema
from kube.errors import ApiError
from kube.fields import Owners, Path, dotted, entry_key, leaves
from kube.resources import Resource
from kube.store import copy

Object = dict[str, Any]


def apply(before: Object | None, config: Object, resource: Resource, manager: str, force: bool) -> Object:
    """The object after ``config`` is applied; 409 where another manager has other values."""
    node, who = schema.of(resource), (manager, "Apply")
    wanted = leaves(config, node)
    owners = Owners(before or {"apiVersion": resource.api_version})
    live = leaves(before, node) if before else {}
    clashes = _clashes(owners, who, wanted, live)
    if clashes and not force:
        raise _conflict(clashes, resource.api_version)
    for other, paths in owners.others(who).items():
        owners.own(other, paths - {path for path, _ in clashes})
    shared = set().union(*owners.others(who).values())
    left = _left(owners.sets.get(who, set()) - set(wanted), shared)
    merged = merge(copy(before) if before else {}, config, node)
    for path in left:
        _drop(merged, node, path)
    owners.own(who, set(wanted))
    owners.write(merged)
    return merged


def _left(left: set[Path], shared: set[Path]) -> list[Path]:
    """What nobody applies any more, entries of lists before their fields; entries stay that others fill."""
    kept = {p[:-1] for p in left if p[-1] == "." and any(s[: len(p) - 1] == p[:-1] for s in shared)}
    names = {(*entry, f"f:{key}") for entry in kept for key in json.loads(entry[-1][2:])}
    gone = left - shared - names - {(*entry, ".") for entry in kept}
    return sorted(gone, key=lambda path: (path[-1] != ".", path))


def _clashes(owners: Owners, who: tuple, wanted: dict, live: dict) -> list[tuple[Path, str]]:
    return [
        (path, other[0])
        for other, paths in owners.others(who).items()
        for path in sorted(paths & set(wanted))
        if path in live and live[path] != wanted[path]
    ]


def _conflict(clashes: list[tuple[Path, str]], version: str) -> ApiError:
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{manager}" using {version}',
            "field": dotted(path),
        }
        for path, manager in clashes
    ]
    if len(causes) == 1:
        said = f"1 conflict: {causes[0]['message']}: {causes[0]['field']}"
    else:
        by: dict[str, list[str]] = {}
        for cause in causes:
            by.setdefault(cause["message"].replace("conflict", "conflicts", 1), []).append(cause["field"])
        parts = [f"{who}:\n" + "\n".join(f"- {f}" for f in found) for who, found in by.items()]
        said = f"{len(causes)} conflicts: " + "\n".join(parts)
    return ApiError(409, "Conflict", f"Apply failed with {said}", {"causes": causes})


def merge(live: Any, config: Any, node: schema.Node) -> Any:
    """``config`` over ``live``; entries of map lists by their keys, other lists as one value."""
    if isinstance(config, dict) and isinstance(live, dict):
        if node.get("x-kubernetes-map-type") == "atomic":
            return config
        for key, value in config.items():
            inner = schema.field(node, key) or {}
            live[key] = merge(live[key], value, inner) if key in live else value
        return live
    keys = schema.list_keys(node)
    if keys and isinstance(config, list) and isinstance(live, list):
        found = {entry_key(entry, keys): entry for entry in live}
        for entry in config:
            name = entry_key(entry, keys)
            found[name] = merge(found.get(name, {}), entry, schema.resolve(node["items"]))
        return list(found.values())
    return config


def _drop(value: Any, node: schema.Node, path: Path) -> None:
    """Remove a leaf, and what is empty without it."""
    key, rest = path[0], path[1:]
    if key.startswith("k:"):
        keys = schema.list_keys(node)
        for entry in [e for e in value if entry_key(e, keys) == key]:
            if rest == (".",):
                value.remove(entry)
            else:
                _drop(entry, schema.resolve(node["items"]), rest)
    elif isinstance(value, dict) and key[2:] in value:
        name = key[2:]
        if not rest:
            del value[name]
            return
        _drop(value[name], schema.field(node, name) or {}, rest)
        if value[name] in ({}, []):
            del value[name]
