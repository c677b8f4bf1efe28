"""What fields of a federation.yaml may hold: types with their checks, and the words for what is allowed."""

import math
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from ..launchers.slurm_site import minutes_of
from ..protocol import NODE_NAME, NUM_PARTITIONS, PARTITION_ID

Scalar = bool | int | float | str
DATA_DIR = "data-dir"
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?")
KEY = re.compile(r"[A-Za-z0-9_-]{1,100}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
HOST = r"[A-Za-z0-9][A-Za-z0-9._-]*|[0-9A-Fa-f:]+"
OPTION = re.compile(r"[a-z][a-z-]*")
OURS = {
    NODE_NAME: "set by the federation",
    PARTITION_ID: "set by the federation",
    NUM_PARTITIONS: "set by the federation",
    DATA_DIR: "written as the site's data_dir",
}
OURS_OF_SBATCH = {
    *(
        "array",
        "clusters",
        "error",
        "export",
        "hold",
        "job-name",
        "no-requeue",
        "nodes",
        "ntasks",
        "ntasks-per-node",
    ),
    *("open-mode", "output", "parsable", "requeue", "signal", "test-only", "wait", "wrap"),
}
FIELDS_OF_SBATCH = {
    *("account", "constraint", "cpus-per-task", "mem", "partition", "qos", "reservation", "time"),
}

MOST_NODES = 1000  # of a site: each is a process, and a slip of the finger should not start a million


def check_name(name: str) -> str:
    """Refuse what cannot be a folder, a TOML key and part of a node's name."""
    if not NAME.fullmatch(name):
        raise ValueError("1 to 50 of a-z, 0-9 and '-', not at its ends")
    if name == "default":
        raise ValueError("another word: Flower keeps 'default' for itself")
    return name


def check_scalars(values: dict[str, Any]) -> dict[str, Any]:
    """Refuse what Flower's node-config cannot carry."""
    for key, value in values.items():
        if not isinstance(key, str) or not KEY.fullmatch(key):
            raise ValueError(f"a mapping whose keys are letters, digits, '_' and '-' ({key!r} is not)")
        if key in OURS:
            raise ValueError(f"a mapping without {key!r}, which is {OURS[key]}")
        fits = isinstance(value, bool | int | float | str)
        if not fits or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError(f"a mapping to numbers, strings, true or false ({key!r} is not)")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError(f"a mapping to numbers of at most 64 bits ({key!r} is not)")
        if isinstance(value, str) and (not value.isprintable() or {"'", '"'} <= set(value)):
            raise ValueError(f"a mapping to strings of one line, with one kind of quotes ({key!r} is not)")
    return values


def check_env(values: Any) -> Any:
    """Numbers may be written without quotes."""
    if not isinstance(values, Mapping):
        return values
    for key, value in values.items():
        if not isinstance(key, str) or not VARIABLE.fullmatch(key):
            raise ValueError(f"a mapping whose keys are names of variables ({key!r} is not)")
        if isinstance(value, bool) or not isinstance(value, int | float | str) or "\0" in str(value):
            raise ValueError(f"a mapping to strings or numbers ({key!r} is not)")
    return {key: str(value) for key, value in values.items()}


def check_time(value: Any) -> Any:
    """Slurm's forms of a time limit, as minutes."""
    try:
        return minutes_of(value) if isinstance(value, str | int) and not isinstance(value, bool) else value
    except ValueError:
        raise ValueError("minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS, above zero") from None


def check_options(values: Any) -> Any:
    """More of sbatch's long options; what we set ourselves is refused."""
    if not isinstance(values, Mapping):
        return values
    found = {}
    for key, value in values.items():
        if not isinstance(key, str) or not OPTION.fullmatch(key):
            raise ValueError(f"a mapping of sbatch's long options, without '--' ({key!r} is not)")
        if key in OURS_OF_SBATCH:
            raise ValueError(f"a mapping without {key!r}, which the launcher sets")
        if key in FIELDS_OF_SBATCH:
            field = key.removesuffix("-per-task")
            raise ValueError(f"a mapping without {key!r}: write it as the site's own {field!r}")
        if not isinstance(value, bool | int | str | None) or value is False or "\n" in str(value):
            raise ValueError(f"a mapping to strings, numbers, or true for a switch ({key!r} is not)")
        found[key] = "" if value is True or value is None else str(value)
    return found


def check_text(value: str) -> str:
    """One line of printable text, as sbatch takes it."""
    if not value or not value.isprintable():
        raise ValueError("a word as sbatch takes it")
    return value


def check_packages(value: Any) -> Any:
    """A switch, or packages as ``import`` takes them, without dots."""
    names = value if isinstance(value, list) else []
    if not isinstance(value, bool | list) or not all(isinstance(n, str) and n.isidentifier() for n in names):
        raise ValueError("true, false, or a list of packages, such as [torch, torchvision]")
    return value


def as_text(value: Any) -> Any:
    """A number where a word is meant."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class Strict(BaseModel):
    """What a file may hold: nothing unknown, nothing of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def absolute(value: str | None, info: ValidationInfo) -> str | None:
    """A folder relative to the file, made absolute."""
    if value is None:
        return None
    base = (info.context or {}).get("base", Path.cwd())
    path = str((base / expanded(value)).resolve())
    check_scalars({"path": path})
    return path


def expanded(value: str) -> Path:
    """A path whose ``~`` is somebody's home."""
    if not value:
        raise ValueError("a path, not an empty word")
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise ValueError("a path; there is no such user") from None


def check_seconds(value: Any) -> Any:
    """True and false count as numbers in Python, and not here."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("seconds from 0.5 to 3600")
    return value


def check_words(value: str) -> str:
    """Words as a shell reads them, quotes closed."""
    try:
        shlex.split(value)
    except ValueError as error:
        raise ValueError(f"words as a shell reads them ({error})") from None
    return value


def check_address(value: str) -> str:
    """A host and a port."""
    host, _, port = value.rpartition(":")
    if not re.fullmatch(HOST, host.strip("[]")) or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError("HOST:PORT")
    return value


Address = Annotated[str, AfterValidator(check_address)]
Name = Annotated[str, AfterValidator(check_name)]
Scalars = Annotated[dict[str, Any], AfterValidator(check_scalars)]
Variables = Annotated[dict[str, str], BeforeValidator(check_env)]
Word = Annotated[str, BeforeValidator(as_text), AfterValidator(check_text)]
Packages = Annotated[bool | list[str], BeforeValidator(check_packages)]
Minutes = Annotated[int, BeforeValidator(check_time), Field(ge=1, le=525600)]
Words = Annotated[str, AfterValidator(check_text), AfterValidator(check_words)]
Seconds = Annotated[float, BeforeValidator(check_seconds), Field(ge=0.5, le=3600, strict=False)]
Options = Annotated[dict[str, str], BeforeValidator(check_options)]
