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

For ``launcher: ec2`` see :mod:`flower_hpc.federation.ec2_site`, for ``handed``, whose nodes others start,
:mod:`flower_hpc.federation.handed_site`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from ..errors import ConfigError
from ..launchers import SlurmOptions
from ..launchers.psij_job import PsijOptions
from .ec2_site import Ec2Site
from .fields import (
    Minutes,
    Options,
    Seconds,
    Strict,
    Word,
    Words,
    absolute,
    expanded,
)
from .handed_site import HandedSite
from .kubernetes_site import KubernetesSite
from .site import Site


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
    setup: list[str] = Field(default=[])
    container: Words | None = None
    options: Options = Field(default={})
    python: Word | None = None
    shared: str | None = None
    poll_s: Seconds = 10.0
    lead_s: int = Field(default=120, ge=0, le=86400)

    @field_validator("shared")
    @classmethod
    def _shared(cls, value: str | None, info: ValidationInfo) -> str | None:
        return absolute(value, info)

    @field_validator("python")
    @classmethod
    def _python(cls, value: str | None) -> str | None:
        return None if value is None else str(expanded(value))

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
        return SlurmOptions(
            folder=folder,
            minutes=self.time,
            setup=tuple(self.setup),
            options=dict(self.options),
            python=self.python,
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


class PsijSite(Site):
    """Nodes that are jobs of a scheduler that PSI/J speaks to."""

    launcher: Literal["psij"]  # type: ignore[assignment]
    executor: Literal["local", "slurm", "pbs", "pbs_classic", "lsf", "flux"]
    queue: Word | None = None
    account: Word | None = None
    reservation: Word | None = None
    time: Minutes = 60
    cpus: int = Field(default=1, ge=1, le=4096)
    gpus: int = Field(default=0, ge=0, le=1024)
    mem_gb: float | None = Field(default=None, gt=0, strict=False)
    setup: list[str] = Field(default=[])
    attributes: dict[str, str] = Field(default={})
    shared: str | None = None
    relay: bool = False
    poll_s: int = Field(default=10, ge=1, le=3600)

    @field_validator("shared")
    @classmethod
    def _shared(cls, value: str | None, info: ValidationInfo) -> str | None:
        return absolute(value, info)

    @model_validator(mode="after")
    def _possible(self) -> "PsijSite":
        try:
            self.batch(Path("/checked"))
        except ConfigError as error:
            raise ValueError(f"a site that PSI/J can serve: {error}") from None
        return self

    @property
    def remote(self) -> bool:
        """Whether its nodes run beyond this machine."""
        return True

    def batch(self, folder: Path) -> PsijOptions:
        """What the launcher is told; job files lie in ``folder``."""
        return PsijOptions(
            executor=self.executor,
            folder=folder,
            queue=self.queue or "",
            account=self.account or "",
            reservation=self.reservation or "",
            minutes=self.time,
            cpus=self.cpus,
            gpus=self.gpus,
            mem_gb=self.mem_gb,
            setup=tuple(self.setup),
            attributes=dict(self.attributes),
            poll_s=self.poll_s,
        )


BATCH = (SlurmSite, PsijSite, KubernetesSite)
KINDS: dict[str, type[Site]] = {
    "local": Site,
    "slurm": SlurmSite,
    "psij": PsijSite,
    "kubernetes": KubernetesSite,
    "ec2": Ec2Site,
    "handed": HandedSite,
}


def kind_of(value: Any) -> str:
    """The tag by which a site's fields are chosen."""
    if isinstance(value, Strict):
        return str(getattr(value, "launcher", "?"))
    kind = value.get("launcher", "local") if isinstance(value, Mapping) else "local"
    return kind if isinstance(kind, str) else "?"


AnySite = Annotated[
    Annotated[Site, Tag("local")]
    | Annotated[SlurmSite, Tag("slurm")]
    | Annotated[PsijSite, Tag("psij")]
    | Annotated[KubernetesSite, Tag("kubernetes")]
    | Annotated[Ec2Site, Tag("ec2")]
    | Annotated[HandedSite, Tag("handed")],
    Discriminator(kind_of),
]
