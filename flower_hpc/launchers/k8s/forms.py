"""The forms that Kubernetes gives to names, labels, quantities and the like; touches no cluster.

Each check raises ConfigError as ``FIELD must be ALLOWED, got VALUE``.
"""

import posixpath
import re
import reprlib
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, NoReturn

from ...errors import ConfigError

QUANTITY = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?|\.[0-9]+)(?P<unit>m|k|Ki|[MGTPE]i?)?")
UNITS = {"": Decimal(1), "m": Decimal("0.001"), "k": Decimal(1000)}
UNITS |= {unit: Decimal(1000) ** power for power, unit in enumerate("MGTPE", 2)}
UNITS |= {f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", 1)}
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
DNS = re.compile(rf"(?=.{{1,253}}$){LABEL.pattern}(\.{LABEL.pattern})*")
WORD = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]")
VARIABLE = re.compile(r"[-._A-Za-z][-._A-Za-z0-9]*")
SECRET_KEY = re.compile(r"[-._A-Za-z0-9]{1,253}")
HOST = (
    r"([A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?(\.[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*|\[[0-9A-Fa-f:]+\])"
)
PART = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
DIGEST = r"[A-Za-z][A-Za-z0-9]*([-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9A-Fa-f]{32,}"
IMAGE = re.compile(
    rf"({HOST}(:[0-9]{{1,5}})?/)?{PART}(/{PART})*(:[A-Za-z0-9_][-A-Za-z0-9_.]{{0,127}})?(@{DIGEST})?"
)
OURS = ("app.kubernetes.io/", "flower-hpc/")
RESOURCES = re.compile(r"cpu|memory|ephemeral-storage|hugepages-[0-9]+[KMG]i")
TOLERATION = ("key", "operator", "value", "effect", "tolerationSeconds")
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
AFFINITY = ("nodeAffinity", "podAffinity", "podAntiAffinity")


def refuse(name: str, allowed: str, got: Any) -> NoReturn:
    """The one line of a mistake; ``got`` is shown as Python has it, and not at any length."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = 100
    raise ConfigError(f"{name} must be {allowed}, got {' '.join(short.repr(got).split())}")


def is_key(value: Any, *, prefixed: bool = False) -> bool:
    """Whether it is the key of a label: ``WORD``, or ``DNS/WORD``, which ``prefixed`` asks for."""
    prefix, slash, word = value.rpartition("/") if isinstance(value, str) else ("", "", "")
    return bool(WORD.fullmatch(word) and (DNS.fullmatch(prefix) if slash else not prefixed))


def check_image(value: str) -> None:
    """A reference to an image, as registries take it."""
    if len(value) > 500 or not IMAGE.fullmatch(value):
        refuse("image", "a reference such as registry.example.org/me/node:1", value)


def check_dns(name: str, value: str) -> None:
    """The name of an object."""
    if not DNS.fullmatch(value):
        refuse(name, "a name of a-z, 0-9, '-' and '.', not '-' or '.' at an end", value)


def check_command(name: str, value: str) -> None:
    """One word, the name or path of a program."""
    if not value.isprintable() or not value or " " in value or value.startswith("-"):
        refuse(name, "the name or path of a program, without spaces", value)


def check_quantity(name: str, value: str, least: str = "") -> None:
    """Refuse what the API would, and what is nothing; or less than ``least``."""
    found = QUANTITY.fullmatch(value)
    if not found or amount(value) <= 0:
        refuse(name, f"a quantity such as {'4Gi or 500M' if least else '500m, 2 or 4Gi'}, above 0", value)
    if least and amount(value) < amount(least):
        refuse(name, f"a size of at least {least}, with its unit, such as 4Gi", value)


def amount(quantity: str) -> Decimal:
    """A quantity as a number."""
    found = QUANTITY.fullmatch(quantity)
    return Decimal(found["number"]) * UNITS[found["unit"] or ""] if found else Decimal(-1)


def check_resources(values: Mapping[str, Mapping[str, Any]]) -> None:
    """``requests`` and ``limits``, as in a pod."""
    for what, asked in values.items():
        if what not in ("requests", "limits"):
            refuse("resources", "a mapping of requests and limits", what)
        for key, value in asked.items():
            if not RESOURCES.fullmatch(key) and not is_key(key, prefixed=True):
                refuse(f"resources.{what}", "a mapping of cpu, memory, ephemeral-storage or DOMAIN/NAME", key)
            if not isinstance(value, str) or not QUANTITY.fullmatch(value):
                refuse(f"resources.{what}", "a mapping to quantities such as 500m, 2 or 4Gi", {key: value})


def check_resource(name: str, value: str) -> None:
    """What a cluster calls a device."""
    if not is_key(value, prefixed=True):
        refuse(name, "DOMAIN/NAME, such as nvidia.com/gpu", value)


def check_labels(name: str, values: Mapping[str, Any], taken: Iterable[str] = ()) -> None:
    """Labels, but for those that start with what is ``taken``."""
    for key, value in values.items():
        if not is_key(key):
            refuse(name, "a mapping of labels, each NAME or DOMAIN/NAME", key)
        if key.startswith(tuple(taken)):
            refuse(name, f"a mapping without {' and '.join(f'{each}...' for each in taken)}, our own", key)
        if not isinstance(value, str) or (value and not WORD.fullmatch(value)):
            refuse(name, "a mapping to at most 63 letters, digits, '-', '_' and '.'", {key: value})


def check_annotations(name: str, values: Mapping[str, Any]) -> None:
    """Annotations: their values are any text."""
    for key in values:
        if not is_key(key.lower()):
            refuse(name, "a mapping of annotations, each NAME or DOMAIN/NAME", key)


def check_secret_env(values: Mapping[str, str]) -> None:
    """``NAME: secret/key``."""
    for variable, where in values.items():
        if not VARIABLE.fullmatch(variable):
            refuse("secret_env", "a mapping whose keys are names of variables", variable)
        secret, _, key = where.partition("/")
        if not DNS.fullmatch(secret) or not SECRET_KEY.fullmatch(key):
            refuse("secret_env", "a mapping to secret/key", {variable: where})


def check_tolerations(values: Iterable[Mapping[str, Any]]) -> None:
    """As in a pod."""
    for one in values:
        key, operator, value = one.get("key"), one.get("operator"), one.get("value")
        after = one.get("tolerationSeconds")
        if unknown := [each for each in one if each not in TOLERATION]:
            refuse("tolerations", f"mappings of {', '.join(TOLERATION)}", unknown[0])
        if key is not None and not is_key(key):
            refuse("tolerations", "mappings whose key is NAME or DOMAIN/NAME", key)
        if operator not in (None, "Exists", "Equal"):
            refuse("tolerations", "mappings whose operator is Exists or Equal", operator)
        if one.get("effect") not in (None, *EFFECTS):
            refuse("tolerations", f"mappings whose effect is one of {', '.join(EFFECTS)}", one["effect"])
        if value is not None and (not isinstance(value, str) or (value and not WORD.fullmatch(value))):
            refuse("tolerations", "mappings whose value is text as a label has it", value)
        if operator == "Exists" and value:
            refuse("tolerations", "mappings without value where the operator is Exists", one)
        if operator != "Exists" and not key:
            refuse("tolerations", "mappings with a key unless the operator is Exists", one)
        if after is not None and (isinstance(after, bool) or not isinstance(after, int)):
            refuse("tolerations", "mappings whose tolerationSeconds is an integer", after)
        if after is not None and one.get("effect") != "NoExecute":
            refuse("tolerations", "mappings with tolerationSeconds for the effect NoExecute alone", one)


def check_affinity(values: Mapping[str, Any]) -> None:
    """As in a pod."""
    for key, value in values.items():
        if key not in AFFINITY or not isinstance(value, Mapping):
            refuse("affinity", f"a mapping of {', '.join(AFFINITY)}, each a mapping", {key: value})


def is_path(value: str) -> bool:
    """Whether it is absolute, and goes nowhere back."""
    return value.startswith("/") and value.isprintable() and ".." not in value.split("/")


def plain(path: str) -> str:
    """A path without doubled or trailing slashes."""
    return "/" + posixpath.normpath(path).lstrip("/")
