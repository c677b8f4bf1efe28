"""What every site of a federation.yaml has; by itself a site of this machine."""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from .elastic_config import Amount, Autoscale, Burst
from .fields import MOST_NODES, Address, Scalars, Strict, Variables, absolute


class Site(Strict):
    """Nodes that are processes of this machine; and what every site has."""

    launcher: Literal["local"] = "local"
    nodes: int = Field(ge=0, le=MOST_NODES)
    data_dir: str | None = None
    node_config: Scalars = Field(default={})
    per_node: dict[str, Scalars] = Field(default={})
    env: Variables = Field(default={})
    network: Literal["private", "host"] | None = None
    usd_per_hour: Amount = 0.0
    """Of one node; this and the next two: see :mod:`~flower_hpc.federation.elastic_config`."""
    autoscale: Autoscale | None = None
    burst: Burst | None = None

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: str | None, info: ValidationInfo) -> str | None:
        return absolute(value, info)

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
