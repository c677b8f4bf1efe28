"""The few objects that kubectl sends in protobuf, such as the question of ``kubectl auth can-i``.

Fields by number as in Kubernetes' generated.proto; what is not listed is skipped. All answers are JSON.
"""

import base64
from typing import Any

from kube.errors import ApiError

MAGIC = b"k8s\0"
MEDIA = "application/vnd.kubernetes.protobuf"
Fields = dict[int, tuple[str, Any]]

TEXTS, DATA = ("map", str), ("map", bytes)
META: Fields = {1: ("name", str), 2: ("generateName", str), 3: ("namespace", str), 11: ("labels", TEXTS)}
META |= {12: ("annotations", TEXTS)}
OBJECT: Fields = {1: ("metadata", META)}
PRECONDITIONS: Fields = {1: ("uid", str), 2: ("resourceVersion", str)}
DELETE: Fields = {
    1: ("gracePeriodSeconds", int),
    2: ("preconditions", PRECONDITIONS),
    3: ("orphanDependents", bool),
    4: ("propagationPolicy", str),
    5: ("dryRun", [str]),
}
NAMES = ("namespace", "verb", "group", "version", "resource", "subresource", "name")
ATTRIBUTES: Fields = {number: (name, str) for number, name in enumerate(NAMES, 1)}
PATH: Fields = {1: ("path", str), 2: ("verb", str)}
KINDS: dict[str, Fields] = {
    "Namespace": OBJECT,
    "ServiceAccount": OBJECT,
    "ConfigMap": OBJECT | {2: ("data", TEXTS), 3: ("binaryData", DATA)},
    "Secret": OBJECT
    | {2: ("data", DATA), 3: ("type", str), 4: ("stringData", TEXTS), 5: ("immutable", bool)},
    "DeleteOptions": DELETE,
    "Eviction": {1: ("metadata", META), 2: ("deleteOptions", DELETE)},
    "SelfSubjectAccessReview": {
        2: ("spec", {1: ("resourceAttributes", ATTRIBUTES), 2: ("nonResourceAttributes", PATH)})
    },
    "SelfSubjectRulesReview": {2: ("spec", {1: ("namespace", str)})},
    "TokenRequest": {2: ("spec", {1: ("audiences", [str]), 4: ("expirationSeconds", int)})},
}
ENVELOPE: Fields = {1: ("type", {1: ("apiVersion", str), 2: ("kind", str)}), 2: ("raw", bytes)}


def decode(body: bytes) -> dict[str, Any]:
    """The object; 415 for a kind that is not known here."""
    envelope = _message(body.removeprefix(MAGIC), ENVELOPE)
    kind = envelope["type"]["kind"]
    if kind not in KINDS:
        raise ApiError(415, "UnsupportedMediaType", f"the stand-in reads no {kind} in protobuf")
    return envelope["type"] | _message(envelope.get("raw", b""), KINDS[kind])


def _message(data: bytes, fields: Fields) -> dict[str, Any]:
    found: dict[str, Any] = {}
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        value: int | bytes
        if tag & 7 == 0:
            value, place = _varint(data, place)
        elif tag & 7 == 2:
            size, place = _varint(data, place)
            value, place = data[place : place + size], place + size
        else:
            raise ApiError(400, "BadRequest", f"unexpected wire type {tag & 7}")
        if tag >> 3 in fields:
            name, kind = fields[tag >> 3]
            if isinstance(kind, tuple):
                entry = _message(value, {1: ("key", str), 2: ("value", kind[1])})
                inner = entry.get("value", kind[1]())
                if kind is DATA:
                    inner = base64.b64encode(inner).decode()
                found.setdefault(name, {})[entry.get("key", "")] = inner
            elif isinstance(kind, list):
                found.setdefault(name, []).append(_value(value, kind[0]))
            elif value != b"" or isinstance(kind, dict):  # absent and empty are the same in JSON
                found[name] = _value(value, kind)
    return found


def _value(value: Any, kind: Any) -> Any:
    if isinstance(kind, dict):
        return _message(value, kind)
    return value.decode() if kind is str else kind(value)


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value, shift, place = value | (byte & 127) << shift, shift + 7, place + 1
        if byte < 128:
            return value, place
