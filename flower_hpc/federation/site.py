"""What every site of a federation.yaml has; by itself a site of this machine."""

from typing import Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from .elastic_config import Amount, Autoscale, Burst
from .fields import MOST_NODES, Address, Packages, Scalars, Strict, Variables, absolute
from .mpi_site import SiteMpi


class Site(Strict):
    """Nodes that are processes of this machine; and what every site has."""

    launcher: Literal["local"] = "local"
    nodes: int = Field(ge=0, le=MOST_NODES)
    data_dir: str | None = None
    node_config: Scalars = Field(default={})
    per_node: dict[str, Scalars] = Field(default={})
    env: Variables = Field(default={})
    network: Literal["private", "host"] | None = None
    warm: Packages = True
    """Whether messages are answered by forks of a process that has imported the app's packages, and which it
    may import; see :mod:`~flower_hpc.launchers.warm`."""
    usd_per_hour: Amount = 0.0
    """Of one node; this and the next two: see :mod:`~flower_hpc.federation.elastic_config`."""
    autoscale: Autoscale | None = None
    burst: Burst | None = None
    mpi: SiteMpi | None = None
    """The clients behind each node; see :mod:`~flower_hpc.federation.mpi_site`."""

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: str | None, info: ValidationInfo) -> str | None:
        return absolute(value, info)

    @model_validator(mode="after")
    def _may_have_clients(self) -> Self:
        if self.mpi is None:
            return self
        if getattr(self, "mode", "") == "on-demand":
            raise ValueError("mpi must be left out where mode is on-demand: its jobs train, got a mapping")
        if self.network == "private":
            raise ValueError("network must be host where there is mpi: its ranks use it, got 'private'")
        cpus, ranks = getattr(self, "cpus", None), self.mpi.workers
        if isinstance(cpus, int) and cpus < ranks:  # of a batch job; rank 0 hardly works and needs none
            raise ValueError(f"cpus must be at least the {ranks} ranks of mpi that train, got {cpus}")
        return self

    @property
    def remote(self) -> bool:
        """Whether its nodes run beyond this machine."""
        return False


class CloudSite(Site):
    """Nodes of a platform that shares no disk with this machine: what they need travels as a bundle."""

    via: Address | None = None
    """``HOST:PORT`` at which its nodes reach the gateway; default: as the others do."""
    grace_s: int = Field(default=60, ge=5, le=3600)
    """Between being asked to leave and being killed."""

    @property
    def remote(self) -> bool:
        """Whether its nodes run beyond this machine."""
        return True
