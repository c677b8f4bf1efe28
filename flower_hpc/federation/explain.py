"""A validation error as one line: the path of the field, its value, what is allowed."""

import re
import reprlib
import types
import typing
from typing import Any

from pydantic import BaseModel, ValidationError

from ..launchers.aws.options import NUMBERS, RULES
from .link_config import KINDS as SUPERLINKS
from .sites import KINDS as SITES

FIELD = re.compile(r"([a-z_]+(?:\.[a-z_]+)*) must be (.+?), got (.+)")
"""How checks of a whole site name the field that they mean."""
ALLOWED = {
    **{name: words for name, (_, words) in RULES.items()},
    **{name: words for name, (_, _, words) in NUMBERS.items()},
    "tags": "a mapping to text",
    "name": "a string",
    "security": "tls, insecure, or a mapping of mode, network, shared_host",
    "partitions": "an integer >= 1",
    "host": "a string",
    "port": "an integer from 1 to 65535, or null",
    "launcher": f"one of: {', '.join(SITES)}",
    "gateway": "a mapping",
    "shared_host": "one of: refuse, accept",
    "cpus": "an integer from 1 to 4096",
    "time": "minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS, at most a year",
    "setup": "a list of lines of bash",
    "relay": "true or false",
    "poll_s": "seconds from 0.5 to 3600",
    "gpus": "an integer from 0 to 1024",
    "grace_s": "whole seconds from 5 to 3600",
    "lead_s": "whole seconds from 0 to 86400",
    "nodes": "an integer from 1 to 1000",
    "mpi": "a mapping of clients, ranks, launch, together",
    "clients": "an integer from 1 to 1000",
    "ranks": "an integer from 1 to 1000",
    "launch": "words as a shell reads them",
    "together": "true or false",
    "min": "an integer from 0 to 1000",
    "max": "an integer from 1 to 1000",
    "to": "the name of another site",
    "after_queue_minutes": "a number from 0 to 1000000",
    "data_dir": "a string",
    "sites": "a mapping of at least one site's name to its settings",
}
OF_KIND = {
    "kubernetes": {
        "image": "a reference such as registry.example.org/me/node:1",
        "cpus": "a quantity such as 2 or 500m",
        "mem": "a quantity such as 4Gi",
        "storage": "a quantity such as 10Gi",
        "gpus": "an integer from 0 to 64",
        "user": "an integer from 1 to 2147483647",
        "pull_secrets": "a list of names",
        "tolerations": "a list of mappings, as in a pod",
        "affinity": "a mapping, as in a pod",
        "volumes": "a list of mappings: mount, and one of claim, secret, config_map, host_path",
        "mount": "an absolute path",
        "read_only": "true or false",
        "egress": "a list of CIDR or CIDR:PORT",
        "node_port": "an integer from 30000 to 32767",
        "python": "the name or path of a program, without spaces",
    },
}
"""By launcher, where its field is not what another's of that name is: looked up first."""


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first mistake of ``error`` in words; a misspelt field before the one that is missing for it."""
    mistakes = error.errors(include_url=False)
    first = next((one for one in mistakes if one["type"] == "extra_forbidden"), mistakes[0])
    path, start, rest = _path([str(part) for part in first["loc"] if part != "[key]"], model)
    where, kind = ".".join(path), first["type"]
    allow = ALLOWED | OF_KIND.get(_launcher(first["loc"]), {})
    if kind == "extra_forbidden":
        known = ", ".join(_fields(start, rest[:-1]))
        return f"{where}: unknown field, must be one of: {known}"
    if kind == "missing":
        return f"{where}: is missing, must be {allow.get(path[-1], 'given')}"
    if kind == "value_error" and not path:
        return str(first["ctx"]["error"])
    if kind == "value_error" and (field := FIELD.fullmatch(str(first["ctx"]["error"]))):
        return f"{where}.{field[1]}: got {field[3]}, must be {field[2]}"
    if kind == "value_error":
        allowed = str(first["ctx"]["error"])
    elif kind == "union_tag_invalid":
        tag, kinds = first["ctx"]["tag"], SUPERLINKS if where == "superlink" else SITES
        return f"{where}.launcher: got {tag!r}, must be one of: {', '.join(kinds)}"
    elif kind in ("dict_type", "model_type", "model_attributes_type"):
        allowed = ALLOWED.get(where, "a mapping")
    elif kind == "literal_error":
        allowed = f"one of: {first['ctx']['expected'].replace(' or ', ', ').replace(chr(39), '')}"
    else:
        allowed = allow.get(path[-1], "a string") if path else "a mapping"
    got = _short(first["input"])
    return f"{where}: got {got}, must be {allowed}" if where else f"got {got}, must be {allowed}"


def _launcher(loc: tuple[int | str, ...]) -> str:
    """The launcher that decides about the field, as pydantic names it in the path."""
    named = loc[2:3] if loc[:1] == ("sites",) else loc[1:2] if loc[:1] == ("superlink",) else ()
    return str(named[0]) if named else ""


def _path(parts: list[str], model: type[BaseModel]) -> tuple[list[str], type[BaseModel], list[str]]:
    """The path as the file has it; the model that its last part starts from; that part.

    Where a launcher decides about the fields, pydantic names it in the path.
    """
    if len(parts) > 2 and parts[0] == "sites" and parts[2] in SITES:
        return [*parts[:2], *parts[3:]], SITES[parts[2]], parts[3:]
    if len(parts) > 1 and parts[0] == "superlink" and parts[1] in SUPERLINKS:
        return ["superlink", *parts[2:]], SUPERLINKS[parts[1]], parts[2:]
    return parts, model, parts


def _short(value: Any) -> str:
    short = reprlib.Repr()
    short.maxstring = short.maxother = 60
    return " ".join(short.repr(value).split())


def _fields(model: type[BaseModel], path: list[str]) -> list[str]:
    """The fields of the model that ``path`` leads to; a mapping's key counts as one step."""
    current: Any = model
    for part in path:
        if isinstance(current, type) and issubclass(current, BaseModel):
            current = current.model_fields[part].annotation
        else:
            current = typing.get_args(current)[-1]
        while isinstance(current, types.UnionType) or typing.get_origin(current) is typing.Annotated:
            current = typing.get_args(current)[0]
    return list(current.model_fields)
