"""What is known only where and when a job starts: free ports, the SuperLink's address, programs."""

import os
import re
import sys
from collections.abc import Mapping, MutableSet
from pathlib import Path

from ..errors import LaunchError
from .base import JobSpec
from .ports import free_port

PORT = re.compile(r"\{port:([a-z]+)\}")
VARIABLE = re.compile(r"\{env:([A-Z_]+)\}")
DOOR, PYTHON = "{door}", "python"


def fill(spec: JobSpec, taken: MutableSet[int]) -> tuple[str, ...]:
    """The command to run here: ``{port:NAME}`` is a free port, ``{door}`` what the spec's door file says.

    ``{env:NAME}`` is a variable of the environment here, which may hold ``{port:NAME}`` in its turn.

    Programs without a folder are those beside this Python; ``python`` is this Python itself.

    Raises
    ------
    LaunchError
        The door file is missing or empty: what is to be reached is not there yet.
    """
    known = [VARIABLE.sub(lambda found: os.environ.get(found[1], ""), word) for word in spec.command]
    words = " ".join(known)
    ports = {name: free_port("127.0.0.1", taken) for name in sorted(set(PORT.findall(words)))}
    taken |= set(ports.values())
    door = read_door(spec.door) if spec.door is not None else ""
    if spec.door is not None and not door:
        raise LaunchError(f"{spec.name}: {spec.door} does not say yet where the SuperLink is")
    filled = (PORT.sub(lambda found: str(ports[found[1]]), word).replace(DOOR, door) for word in known)
    return tuple(_program(word) for word in filled)


def read_door(path: Path) -> str:
    """The endpoint that a door file names; empty where there is none yet, or its disk does not answer."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _program(word: str) -> str:
    folder = Path(sys.executable).parent
    if word == PYTHON:
        return sys.executable
    return str(folder / word) if word.startswith(("flower-", "flwr")) and (folder / word).exists() else word


def with_programs(env: Mapping[str, str]) -> dict[str, str]:
    """``env`` with this Python's folder first on PATH: Flower looks for its programs there."""
    folder = str(Path(sys.executable).parent)
    return dict(env) | {"PATH": f"{folder}{os.pathsep}{env.get('PATH', os.defpath)}"}
