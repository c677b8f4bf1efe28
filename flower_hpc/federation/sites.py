"""The sites of a federation.yaml: nodes that are started in one way, at one place.

On a Slurm cluster::

    sites:
      hpc:
        launcher: slurm
        nodes: 8
        partition: gpu           # and account, qos, constraint, reservation: as in sbatch
        time: 4:00:00            # Slurm's forms; a plain number is minutes. Default 60
        cpus: 4                  # a node; default 1
        mem: 16G
        gpus: a100:1             # or a number
        setup: [module load python, source ~/venv/bin/activate]
        container: apptainer exec --nv image.sif      # or Pyxis' options of srun
        options: {mail-type: FAIL}                    # more long options of sbatch
        python: ~/venv/bin/python                     # default: the Python of this command
        shared: /scratch/me      # a folder that the compute nodes see; default: the state folder
        mode: pilot              # pilot = a job a node; on-demand = nodes here, a job for each training
        relay: false             # true: the compute nodes reach this host alone, and it forwards for them
        poll_s: 10               # between two looks at the queue
        network: private         # of the node's apps: private, or host where they need the network
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
)

from ..errors import ConfigError
from ..launchers import SlurmOptions
from ..launchers.slurm_site import minutes_of
from ..protocol import NODE_NAME, NUM_PARTITIONS, PARTITION_ID

Scalar = bool | int | float | str
DATA_DIR = "data-dir"
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?")
KEY = re.compile(r"[A-Za-z0-9_-]{1,100}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
OPTION = re.compile(r"[a-z][a-z-]*")
OURS = {
    NODE_NAME: "set by the federation",
    PARTITION_ID: "set by the federation",
    NUM_PARTITIONS: "set by the federation",
    DATA_DIR: "written as the site's data_dir",
}
OURS_OF_SBATCH = {"array", "error", "export", "job-name", "open-mode", "output", "requeue", "signal"}
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
        if not isinstance(value, bool | int | str | None) or value is False or "\n" in str(value):
            raise ValueError(f"a mapping to strings, numbers, or true for a switch ({key!r} is not)")
        found[key] = "" if value is True or value is None else str(value)
    return found


def check_text(value: str) -> str:
    """One line of printable text, as sbatch takes it."""
    if not value or not value.isprintable():
        raise ValueError("a word as sbatch takes it")
    return value


def as_text(value: Any) -> Any:
    """A number where a word is meant."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Name = Annotated[str, AfterValidator(check_name)]
Scalars = Annotated[dict[str, Any], AfterValidator(check_scalars)]
Variables = Annotated[dict[str, str], BeforeValidator(check_env)]
Word = Annotated[str, BeforeValidator(as_text), AfterValidator(check_text)]
Minutes = Annotated[int, BeforeValidator(check_time), Field(ge=1, le=525600)]
Options = Annotated[dict[str, str], BeforeValidator(check_options)]


class Strict(BaseModel):
    """What a file may hold: nothing unknown, nothing of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Site(Strict):
    """Nodes that are processes of this machine; and what every site has."""

    launcher: Literal["local"] = "local"
    nodes: int = Field(ge=1, le=MOST_NODES)
    data_dir: str | None = None
    node_config: Scalars = {}
    per_node: dict[str, Scalars] = {}
    env: Variables = {}
    network: Literal["private", "host"] | None = None

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: str | None, info: ValidationInfo) -> str | None:
        return absolute(value, info)

    @property
    def remote(self) -> bool:
        """Whether its nodes run beyond this machine."""
        return False


class SlurmBatch(Strict):
    """What is asked of sbatch, for nodes and for a SuperLink; see the module's text."""

    launcher: Literal["slurm"]
    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    constraint: Word | None = None
    reservation: Word | None = None
    time: Minutes = 60
    cpus: int = Field(default=1, ge=1, le=4096)
    mem: Word | None = None
    gpus: Word | None = None
    setup: list[str] = []
    container: Word | None = None
    options: Options = {}
    python: Word | None = None
    shared: str | None = None
    poll_s: float = Field(default=10.0, ge=0.5, le=3600, strict=False)
    lead_s: int = Field(default=120, ge=0, le=86400)

    @field_validator("shared")
    @classmethod
    def _shared(cls, value: str | None, info: ValidationInfo) -> str | None:
        return absolute(value, info)

    @field_validator("gpus", "mem")
    @classmethod
    def _as_sbatch(cls, value: str | None, info: ValidationInfo) -> str | None:
        try:
            SlurmOptions(folder=Path(), **{str(info.field_name): value})  # type: ignore[arg-type]
        except ConfigError as error:
            raise ValueError(str(error).partition(" must be ")[2].partition(", got")[0]) from None
        return value

    def batch(self, folder: Path) -> SlurmOptions:
        """What the launcher is told; job files lie in ``folder``."""
        names = "partition account qos constraint reservation cpus mem gpus container lead_s"
        same = {name: getattr(self, name) for name in names.split()}
        python = str(Path(self.python).expanduser()) if self.python else None
        return SlurmOptions(
            folder=folder,
            minutes=self.time,
            setup=tuple(self.setup),
            options=dict(self.options),
            python=python,
            **same,
        )


class SlurmSite(SlurmBatch, Site):
    """Nodes that are jobs of a Slurm cluster, or that have a job for each training message."""

    launcher: Literal["slurm"]  # type: ignore[assignment]
    mode: Literal["pilot", "on-demand"] = "pilot"
    relay: bool = False

    @property
    def remote(self) -> bool:
        """Whether its nodes run beyond this machine."""
        return self.mode == "pilot"


KINDS: dict[str, type[Site]] = {"local": Site, "slurm": SlurmSite}


def kind_of(value: Any) -> str:
    """The tag by which a site's fields are chosen."""
    if isinstance(value, Strict):
        return str(getattr(value, "launcher", "?"))
    kind = value.get("launcher", "local") if isinstance(value, Mapping) else "local"
    return kind if isinstance(kind, str) else "?"


AnySite = Annotated[
    Annotated[Site, Tag("local")] | Annotated[SlurmSite, Tag("slurm")], Discriminator(kind_of)
]


def absolute(value: str | None, info: ValidationInfo) -> str | None:
    """A folder relative to the file, made absolute."""
    if value is None:
        return None
    base = (info.context or {}).get("base", Path.cwd())
    path = str((base / Path(value).expanduser()).resolve())
    check_scalars({"path": path})
    return path
