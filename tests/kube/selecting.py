"""Label and field selectors: as text in a request, and as objects in a manifest."""

import re
from collections.abc import Callable
from typing import Any

from kube.errors import bad_request

Object = dict[str, Any]
Predicate = Callable[[Object], bool]
FIELDS = {
    "metadata.name": lambda o: o["metadata"]["name"],
    "metadata.namespace": lambda o: o["metadata"].get("namespace", ""),
    "spec.nodeName": lambda o: o.get("spec", {}).get("nodeName", ""),
    "status.phase": lambda o: o.get("status", {}).get("phase", ""),
    "spec.restartPolicy": lambda o: o.get("spec", {}).get("restartPolicy", ""),
    "spec.unschedulable": lambda o: str(o.get("spec", {}).get("unschedulable", False)).lower(),
    "type": lambda o: o.get("type", ""),
    "reason": lambda o: o.get("reason", ""),
    **{
        f"involvedObject.{key}": lambda o, key=key: o.get("involvedObject", {}).get(key, "")
        for key in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
    },
}


def labels(text: str) -> Predicate:
    """The predicate of ``a=b,c!=d,e in (f,g),h,!i``."""
    terms = [_term(part.strip()) for part in re.split(r",(?![^(]*\))", text) if part.strip()]
    return lambda item: all(term(item["metadata"].get("labels") or {}) for term in terms)


def _term(text: str) -> Predicate:
    if match := re.fullmatch(r"(\S+)\s+(in|notin)\s+\(([^)]*)\)", text):
        key, how, values = match[1], match[2], {v.strip() for v in match[3].split(",")}
        return lambda found: (found.get(key) in values) == (how == "in")
    if match := re.fullmatch(r"([^!=\s]+)\s*(!=|==|=)\s*(\S*)", text):
        key, how, value = match.groups()
        return lambda found: (found.get(key) == value) == (how != "!=")
    if match := re.fullmatch(r"(!?)([\w./-]+)", text):
        return lambda found: (match[2] in found) == (not match[1])
    raise bad_request(f"unable to parse requirement: found '{text}', expected: in, notin, =, ==, !=, gt, lt")


def fields(text: str) -> Predicate:
    """The predicate of ``metadata.name=x,status.phase!=Failed``."""
    terms = []
    for part in filter(None, text.split(",")):
        key, sign, value = re.fullmatch(r"([^!=]+)(!=|==|=)(.*)", part).groups()
        if key not in FIELDS:
            raise bad_request(f'field label not supported: "{key}"')
        terms.append((FIELDS[key], sign != "!=", value))
    return lambda item: all((read(item) == value) == same for read, same, value in terms)


def matches(selector: Object | None, found: dict[str, str]) -> bool:
    """Whether a LabelSelector chooses these labels; none chooses nothing, an empty one all."""
    if selector is None:
        return False
    if any(found.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    return all(requirement(r, found) for r in selector.get("matchExpressions", []))


def requirement(one: Object, found: dict[str, str]) -> bool:
    """One entry of ``matchExpressions``."""
    value, values = found.get(one["key"]), one.get("values", [])
    match one["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return value is not None and int(value) > int(values[0])
        case "Lt":
            return value is not None and int(value) < int(values[0])
    return False
