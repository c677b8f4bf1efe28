"""A validation error as one line: the path of the field, its value, what is allowed."""

import reprlib
import types
import typing
from typing import Any

from pydantic import BaseModel, ValidationError

ALLOWED = {
    "name": "a string",
    "security": "one of: tls, insecure",
    "partitions": "an integer >= 1",
    "host": "a string",
    "port": "an integer from 1 to 65535, or null",
    "launcher": "one of: local",
    "nodes": "an integer from 1 to 1000",
    "data_dir": "a string",
    "sites": "a mapping of at least one site's name to its settings",
}


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first mistake of ``error`` in words; a misspelt field before the one that is missing for it."""
    mistakes = error.errors(include_url=False)
    first = next((one for one in mistakes if one["type"] == "extra_forbidden"), mistakes[0])
    path = [str(part) for part in first["loc"] if part != "[key]"]
    where, kind = ".".join(path), first["type"]
    if kind == "extra_forbidden":
        known = ", ".join(_fields(model, path[:-1]))
        return f"{where}: unknown field, must be one of: {known}"
    if kind == "missing":
        return f"{where}: is missing, must be {ALLOWED.get(path[-1], 'given')}"
    if kind == "value_error" and not path:
        return str(first["ctx"]["error"])
    if kind == "value_error":
        allowed = str(first["ctx"]["error"])
    elif kind in ("dict_type", "model_type", "model_attributes_type"):
        allowed = ALLOWED.get(where, "a mapping")
    else:
        allowed = ALLOWED.get(path[-1], "a string") if path else "a mapping"
    got = _short(first["input"])
    return f"{where}: got {got}, must be {allowed}" if where else f"got {got}, must be {allowed}"


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
