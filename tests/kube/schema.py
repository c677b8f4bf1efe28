"""The API's schemas (those that `kubernetes-validate` ships), and how the server decodes with them.

Decoding finds wrong types (always refused) and unknown fields (refused, told or ignored, as the request
asks), and rewrites quantities. The schemas also say which lists are maps for patches and server-side apply.
"""

import base64
import binascii
import json
from functools import cache
from importlib.resources import files
from typing import Any

from kube import quantity
from kube.errors import ApiError, bad_request
from kube.resources import Resource

VERSION = "1.36"
Node = dict[str, Any]
NAMES = {str: "string", bool: "bool", int: "number", float: "number", dict: "object", list: "array"}
# what Go calls them
GO = {"string": "string", "boolean": "bool", "integer": "int32", "number": "float64"}


@cache
def definitions() -> dict[str, Node]:
    """Every type of the API by its full name."""
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{VERSION}.0-local"
    found = json.loads((folder / "_definitions.json").read_text())
    return found.get("$defs") or found["definitions"]


@cache
def by_kind() -> dict[tuple[str, str, str], Node]:
    """Schemas of whole objects by group, version and kind."""
    return {
        (kind["group"], kind["version"], kind["kind"]): node | {"name": name}
        for name, node in definitions().items()
        for kind in node.get("x-kubernetes-group-version-kind", [])
    }


def of(resource: Resource) -> Node:
    """The schema of an object of this kind."""
    return by_kind()[resource.group, resource.version, resource.kind]


def resolve(node: Node) -> Node:
    """The type that a field refers to, with the field's own remarks, such as merge keys."""
    if "$ref" not in node:
        return node
    name = node["$ref"].rpartition("/")[2]
    return definitions()[name] | {k: v for k, v in node.items() if k.startswith("x-")} | {"name": name}


def field(node: Node, key: str) -> Node | None:
    """The type of a field, or of a map's entries; None where there is none of this name."""
    if key in node.get("properties", {}):
        return resolve(node["properties"][key])
    more = node.get("additionalProperties")
    return resolve(more) if isinstance(more, dict) else None


def is_free(node: Node) -> bool:
    """Whether anything may stand there."""
    return not node.get("properties") and not isinstance(node.get("additionalProperties"), dict)


def short_name(node: Node) -> str:
    """``Container`` of ``io.k8s.api.core.v1.Container``."""
    return node.get("name", "").rpartition(".")[2]


def type_of(node: Node) -> str:
    """The one type besides null, ``string`` where there are more."""
    kinds = node.get("type", "object" if "properties" in node else "string")
    return next((k for k in kinds if k != "null"), "string") if isinstance(kinds, list) else kinds


def list_keys(node: Node) -> list[str] | None:
    """The keys by which a list's entries are merged in server-side apply; None: the list is one value."""
    if node.get("x-kubernetes-list-type") == "map":
        return node["x-kubernetes-list-map-keys"]
    return None


class Decoder:
    """Reads one object as the server does; ``unknown`` collects fields that nobody declared."""

    def __init__(self, resource: Resource):
        self.resource, self.unknown = resource, []

    def decode(self, item: Any) -> dict[str, Any]:
        """The object without nulls and unknown fields, quantities in the server's way of writing."""
        if not isinstance(item, dict):
            raise self._refused("json: cannot unmarshal " + NAMES.get(type(item), "null"))
        node = of(self.resource)
        return self._object(item, node, "", "", node)

    def _refused(self, why: str) -> ApiError:
        kind, version = self.resource.kind, self.resource.version
        return bad_request(f'{kind} in version "{version}" cannot be handled as a {kind}: {why}')

    def strict(self) -> None:
        """Refuse unknown fields."""
        if self.unknown:
            said = ", ".join(f'unknown field "{name}"' for name in self.unknown)
            raise self._refused(f"strict decoding error: {said}")

    def _value(self, value: Any, node: Node, path: str, dotted: str, struct: Node) -> Any:
        name = short_name(node)
        if name == "Quantity" and not isinstance(value, (dict, list, bool)):
            try:
                return quantity.canonical(value)
            except ValueError as error:
                raise self._refused(str(error)) from None
        if name == "IntOrString" and type(value) in (int, str):
            return value
        kind = type_of(node)
        self._check(value, kind, node, dotted, struct)
        if kind == "array":
            entry = resolve(node["items"])
            return [
                self._value(v, entry, f"{path}[{i}]", dotted, struct or node) for i, v in enumerate(value)
            ]
        if kind == "object":
            return self._object(value, node, path, dotted, struct)
        if node.get("format") == "byte":
            self._base64(value)
        return value

    def _object(self, value: dict, node: Node, path: str, dotted: str, struct: Node) -> dict[str, Any]:
        if is_free(node):
            return value
        struct, found = node if "properties" in node else struct, {}
        for key, entry in value.items():
            inner = field(node, key)
            where = f"{path}.{key}" if path else key
            if inner is None:
                self.unknown.append(where)
            elif entry is not None:
                found[key] = self._value(entry, inner, where, f"{dotted}.{key}" if dotted else key, struct)
        return found

    def _check(self, value: Any, kind: str, node: Node, dotted: str, struct: Node) -> None:
        wanted = {"array": list, "object": dict, "string": str, "boolean": bool, "integer": int}
        said = NAMES.get(type(value), "null")
        if kind == "number" and type(value) in (int, float):
            return
        if type(value) is wanted.get(kind):
            return
        if kind == "integer" and type(value) is float:
            said = f"number {value}"
        go = GO.get(kind) or ("[]" if kind == "array" else "") + f"v1.{short_name(node) or 'Value'}"
        if node.get("format") == "int64":
            go = "int64"
        where = f"{short_name(struct)}.{dotted}"
        raise self._refused(f"json: cannot unmarshal {said} into Go struct field {where} of type {go}")

    def _base64(self, value: str) -> None:
        try:
            base64.b64decode(value, validate=True)
        except binascii.Error:
            good = next(
                (i for i, c in enumerate(value) if not (c.isalnum() or c in "+/=")), len(value) // 4 * 4
            )
            raise self._refused(f"illegal base64 data at input byte {good}") from None
