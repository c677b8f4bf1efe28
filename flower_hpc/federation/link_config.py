"""The ``superlink`` of a federation.yaml: a process of this machine, or a job."""

import ipaddress
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from .fields import Strict
from .sites import SlurmBatch, kind_of


class SuperLinkConfig(Strict):
    """Where the SuperLink listens: a loopback address, and a port (default: a free one is found)."""

    launcher: Literal["local"] = "local"
    host: str = "127.0.0.1"
    port: int | None = Field(default=None, ge=1, le=65535)

    @field_validator("host")
    @classmethod
    def _loopback(cls, host: str) -> str:
        # whoever reaches the SuperLink's port can submit runs, that is, execute code as its user
        try:
            loopback = ipaddress.ip_address(host).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            raise ValueError("a loopback address, such as 127.0.0.1 or ::1")
        return host


class SlurmSuperLink(SlurmBatch):
    """A SuperLink that is a Slurm job, with the fields of a Slurm site; the state folder must be shared."""

    @property
    def host(self) -> str:
        """Where it listens, in a network of its own."""
        return "127.0.0.1"

    @property
    def port(self) -> None:
        """One is found where it starts."""
        return


AnySuperLink = Annotated[
    Annotated[SuperLinkConfig, Tag("local")] | Annotated[SlurmSuperLink, Tag("slurm")], Discriminator(kind_of)
]
KINDS: dict[str, type[Strict]] = {"local": SuperLinkConfig, "slurm": SlurmSuperLink}
