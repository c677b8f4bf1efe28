"""The environment and the command of a container: fields, secrets, config maps and variables in them."""

import base64
import re
from typing import Any

from kube.store import Object, Store


class ConfigError(Exception):
    """What keeps a container from being created: ``CreateContainerConfigError``."""


def expand(text: str, env: dict[str, str]) -> str:
    """``$(NAME)`` of what is known, ``$$`` as a dollar."""

    def one(match: re.Match) -> str:
        if match[0] == "$$":
            return "$"
        return env.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", one, text)


def field_of(pod: Object, path: str) -> str:
    """What a ``fieldRef`` names."""
    meta, status = pod["metadata"], pod.get("status", {})
    if match := re.fullmatch(r"metadata\.(labels|annotations)\['([^']+)'\]", path):
        return meta.get(match[1], {}).get(match[2], "")
    plain = {
        "metadata.name": meta["name"],
        "metadata.namespace": meta["namespace"],
        "metadata.uid": meta["uid"],
        "spec.nodeName": pod["spec"].get("nodeName", ""),
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName", ""),
        "status.podIP": status.get("podIP", ""),
        "status.podIPs": status.get("podIP", ""),
        "status.hostIP": status.get("hostIP", ""),
        "metadata.labels": _lines(meta.get("labels", {})),
        "metadata.annotations": _lines(meta.get("annotations", {})),
    }
    return plain[path]


def _lines(pairs: dict[str, str]) -> str:
    return "\n".join(f'{key}="{value}"' for key, value in sorted(pairs.items()))


def data_of(store: Store, plural: str, namespace: str, name: str) -> dict[str, bytes] | None:
    """The entries of a secret or config map."""
    found = store.find(plural, namespace, name)
    if found is None:
        return None
    if plural == "secrets":
        return {key: base64.b64decode(value) for key, value in found.get("data", {}).items()}
    text = {key: value.encode() for key, value in found.get("data", {}).items()}
    return text | {key: base64.b64decode(value) for key, value in found.get("binaryData", {}).items()}


def variables(store: Store, pod: Object, container: Object, image_env: dict[str, str]) -> dict[str, str]:
    """Everything that ``env`` and ``envFrom`` say, over what the image brings."""
    own: dict[str, str] = {}
    for source in container.get("envFrom", []):
        for key, word in (("secretRef", "secrets"), ("configMapRef", "configmaps")):
            if key in source:
                found = _all(store, word, pod, source[key])
                own |= {source.get("prefix", "") + k: v.decode() for k, v in found.items()}
    for one in container.get("env", []):
        value = _from(store, pod, container, one["valueFrom"]) if "valueFrom" in one else one.get("value", "")
        if value is not None:
            own[one["name"]] = value if "valueFrom" in one else expand(value, image_env | own)
    return image_env | own


def _all(store: Store, plural: str, pod: Object, ref: Object) -> dict[str, bytes]:
    found = data_of(store, plural, pod["metadata"]["namespace"], ref["name"])
    if found is None and not ref.get("optional"):
        raise ConfigError(f'{plural[:-1]} "{ref["name"]}" not found')
    return found or {}


def _from(store: Store, pod: Object, container: Object, source: Object) -> str | None:
    if "fieldRef" in source:
        return field_of(pod, source["fieldRef"]["fieldPath"])
    if "resourceFieldRef" in source:
        kind, _, name = source["resourceFieldRef"]["resource"].partition(".")
        return str(container.get("resources", {}).get(kind, {}).get(name, "0"))
    for key, plural, word in (
        ("secretKeyRef", "secrets", "Secret"),
        ("configMapKeyRef", "configmaps", "ConfigMap"),
    ):
        if key in source:
            ref = source[key]
            found = _all(store, plural, pod, ref)
            if ref["key"] in found:
                return found[ref["key"]].decode()
            if not ref.get("optional"):
                where = f"{pod['metadata']['namespace']}/{ref['name']}"
                raise ConfigError(f"couldn't find key {ref['key']} in {word} {where}")
    return None


def command(container: Object, env: dict[str, str]) -> list[str]:
    """The words to run; an image here has no entry point of its own."""
    words: list[Any] = [*container.get("command", []), *container.get("args", [])]
    return [expand(word, env) for word in words]
