"""What a real server refuses in a pod's specification, wherever that stands."""

from collections.abc import Iterable, Iterator
from typing import Any

from kube import quantity, words
from kube.errors import Cause

Object = dict[str, Any]
NATIVE = {"cpu", "memory", "ephemeral-storage"}
PORT = "must be between 1 and 65535, inclusive"


def pod_spec(spec: Object, path: str, claims: Iterable[str] = ()) -> list[Cause]:
    """``claims`` are volumes that the template of a StatefulSet brings."""
    volumes = [v["name"] for v in spec.get("volumes", [])]
    causes = [*_volumes(spec.get("volumes", []), f"{path}.volumes")]
    causes += _twice([*volumes], f"{path}.volumes", "name")
    names = [c["name"] for key in ("initContainers", "containers") for c in spec.get(key, [])]
    causes += _twice(names, f"{path}.containers", "name")
    for key in ("initContainers", "containers"):
        for i, container in enumerate(spec.get(key, [])):
            causes += _container(container, f"{path}.{key}[{i}]", {*volumes, *claims})
    for i, toleration in enumerate(spec.get("tolerations", [])):
        causes += _toleration(toleration, f"{path}.tolerations[{i}]")
    if spec.get("activeDeadlineSeconds", 1) < 1:
        said = "must be between 1 and 2147483647, inclusive"
        causes.append(
            Cause(f"{path}.activeDeadlineSeconds", "Invalid value", said, spec["activeDeadlineSeconds"])
        )
    return causes


def _twice(names: list[str], path: str, key: str) -> Iterator[Cause]:
    for i, name in enumerate(names):
        if name in names[:i]:
            yield Cause(f"{path}[{i}].{key}", "Duplicate value", "", name)


def _volumes(volumes: list[Object], path: str) -> Iterator[Cause]:
    for i, volume in enumerate(volumes):
        sources = sorted(key for key in volume if key != "name")
        if wrong := words.syntax(words.LABEL, volume["name"], 63):
            yield Cause(f"{path}[{i}].name", "Invalid value", wrong, volume["name"])
        if not sources:
            yield Cause(f"{path}[{i}]", "Required value", "must specify a volume type")
        if len(sources) > 1:
            said = "may not specify more than 1 volume type"
            yield Cause(f"{path}[{i}].{sources[1]}", "Forbidden", said)
        if "secret" in volume and not volume["secret"].get("secretName"):
            yield Cause(f"{path}[{i}].secret.secretName", "Required value")


def _container(container: Object, path: str, volumes: set[str]) -> Iterator[Cause]:
    if wrong := words.syntax(words.LABEL, container["name"], 63):
        yield Cause(f"{path}.name", "Invalid value", wrong, container["name"])
    if not container.get("image"):
        yield Cause(f"{path}.image", "Required value")
    elif container["image"] != container["image"].strip():
        said = "must not have leading or trailing whitespace"
        yield Cause(f"{path}.image", "Invalid value", said, container["image"])
    for i, port in enumerate(container.get("ports", [])):
        for key in ("containerPort", "hostPort"):
            if key in port and not 0 < port[key] < 65536:
                yield Cause(f"{path}.ports[{i}].{key}", "Invalid value", PORT, port[key])
    yield from _mounts(container.get("volumeMounts", []), f"{path}.volumeMounts", volumes)
    yield from _env(container.get("env", []), f"{path}.env")
    yield from _resources(container.get("resources", {}), f"{path}.resources")
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if probe in container:
            yield from _probe(container[probe], f"{path}.{probe}")


def _mounts(mounts: list[Object], path: str, volumes: set[str]) -> Iterator[Cause]:
    seen = set()
    for i, mount in enumerate(mounts):
        if mount["name"] not in volumes:
            yield Cause(f"{path}[{i}].name", "Not found", "", mount["name"])
        if mount["mountPath"] in seen:
            yield Cause(f"{path}[{i}].mountPath", "Invalid value", "must be unique", mount["mountPath"])
        if ".." in mount.get("subPath", "").split("/"):
            yield Cause(f"{path}[{i}].subPath", "Invalid value", "must not contain '..'", mount["subPath"])
        seen.add(mount["mountPath"])


def _env(env: list[Object], path: str) -> Iterator[Cause]:
    for i, one in enumerate(env):
        if "=" in one["name"]:
            said = "a valid environment variable name must consist only of printable ASCII characters "
            said += "other than '='"
            yield Cause(f"{path}[{i}].name", "Invalid value", said, one["name"])
        if "value" in one and one["value"] and "valueFrom" in one:
            said = "may not be specified when `value` is not empty"
            yield Cause(f"{path}[{i}].valueFrom", "Invalid value", said, "")


def _resources(resources: Object, path: str) -> Iterator[Cause]:
    limits, requests = resources.get("limits", {}), resources.get("requests", {})
    for where, found in (("limits", limits), ("requests", requests)):
        for name, amount in found.items():
            yield from _amount(name, amount, f"{path}.{where}")
    for name, amount in requests.items():
        if name not in limits:
            if name not in NATIVE:
                said = "Limit must be set for non overcommitable resources"
                yield Cause(f"{path}.limits", "Required value", said)
        elif name not in NATIVE and quantity.parse(amount) != quantity.parse(limits[name]):
            said = f"must be equal to {name} limit of {limits[name]}"
            yield Cause(f"{path}.requests", "Invalid value", said, amount)
        elif quantity.parse(amount) > quantity.parse(limits[name]):
            said = f"must be less than or equal to {name} limit of {limits[name]}"
            yield Cause(f"{path}.requests", "Invalid value", said, amount)


def _amount(name: str, amount: str, path: str) -> Iterator[Cause]:
    value = quantity.parse(amount)
    if name not in NATIVE and "/" not in name and not name.startswith("hugepages-"):
        said = "must be a standard resource type or fully qualified"
        yield Cause(f"{path}[{name}]", "Invalid value", said, name)
    if value < 0:
        yield Cause(f"{path}[{name}]", "Invalid value", "must be greater than or equal to 0", amount)
    elif name not in NATIVE and value != value.to_integral_value():
        yield Cause(f"{path}[{name}]", "Invalid value", "must be an integer", amount)


def _probe(probe: Object, path: str) -> Iterator[Cause]:
    handlers = [key for key in ("exec", "grpc", "httpGet", "tcpSocket") if key in probe]
    if not handlers:
        yield Cause(path, "Required value", "must specify a handler type")
    port = probe[handlers[0]].get("port") if handlers and handlers[0] != "exec" else None
    if isinstance(port, int) and not 0 < port < 65536:
        yield Cause(f"{path}.{handlers[0]}.port", "Invalid value", PORT, port)


def _toleration(toleration: Object, path: str) -> Iterator[Cause]:
    if toleration.get("operator") == "Exists" and toleration.get("value"):
        said = "value must be empty when `operator` is 'Exists'"
        yield Cause(f"{path}.operator", "Invalid value", said, toleration)
    if "tolerationSeconds" in toleration and toleration.get("effect") != "NoExecute":
        said = "effect must be 'NoExecute' when `tolerationSeconds` is set"
        yield Cause(f"{path}.effect", "Invalid value", said, toleration.get("effect", ""))
