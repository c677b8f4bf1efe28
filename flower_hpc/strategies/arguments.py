"""Arguments that a strategy or policy does not take, or lacks, told in our words rather than Python's."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .options import HybridOptions
from .registry import MARKUP, NOT_SPEC, STRATEGIES


def refusal(name: str, make: Callable[..., Any], values: Sequence[Any], named: Mapping[str, Any]) -> str:
    """What is wrong with a call of ``name``, judged by its signature alone; empty where nothing is."""
    found = {key: p for key, p in inspect.signature(make).parameters.items() if key != "self"}
    free = any(p.kind is p.VAR_KEYWORD for p in found.values())
    own = {key: p for key, p in found.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    places = [key for key, p in own.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    known = set(own)
    if free and name in STRATEGIES:
        known |= HybridOptions.__annotations__.keys() - NOT_SPEC
    unknown = [key for key in named if key not in known]
    if unknown and (name in STRATEGIES or not free):
        allowed = ", ".join(sorted(known)) or "none"
        return f"{name} has no parameter {unknown[0]!r}, known are {allowed}"
    if len(values) > len(places) and not any(p.kind is p.VAR_POSITIONAL for p in found.values()):
        most = (
            f"at most {len(places)} without a name ({', '.join(places)})" if places else "none without a name"
        )
        return f"{name} takes {most}, got {len(values)}"
    given = set(places[: len(values)])
    if twice := given & named.keys():
        return f"{name} is given {', '.join(sorted(twice))} twice"
    lacks = [key for key, p in own.items() if p.default is p.empty and key not in given | named.keys()]
    return f"{name} needs {'; '.join(_told(key, make) for key in lacks)}" if lacks else ""


def _told(key: str, make: Callable[..., Any]) -> str:
    """A parameter and the first sentence that its class says of it."""
    lines = (inspect.getdoc(make) or "").splitlines()
    heads = [i for i, line in enumerate(lines) if re.match(rf"{key}\b.* : |{key} : ", line)]
    words = ""
    for line in lines[heads[0] + 1 :] if heads else ():
        if not line.startswith(" "):
            break
        words += f" {line.strip()}"
    first = MARKUP.sub(r"\1", re.split(r"[.;](?:\s|$)", words.strip())[0])
    return f"{key}: {first[:1].lower()}{first[1:]}" if first else key
