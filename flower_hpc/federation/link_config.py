"""The ``superlink`` of a federation.yaml: a process of this machine, a job, or a pod.

A pod, which holds the controller and the gateway too, so that this machine can be switched off::

    superlink:
      launcher: kubernetes
      image: registry.example.org/me/flower-hpc:1
      service: LoadBalancer      # or NodePort, port-forward (default: for nodes of that cluster alone)
      storage: 5Gi               # of the state folder; null: it is lost with the pod
      namespace: fl              # must be said; and the other fields of a Kubernetes site
    gateway: {port: 8443, address: fl.example.org}     # as nodes know it; default: the Service's name
"""

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from ..errors import ConfigError
from ..launchers.k8s.forms import check_annotations
from ..launchers.k8s.link import PORT, LinkOptions
from .fields import Strict
from .kubernetes_site import KubernetesPods, Text
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


class KubernetesSuperLink(KubernetesPods):
    """A SuperLink that is a pod, with the controller and the gateway in it."""

    launcher: Literal["kubernetes"]
    namespace: Text
    service: Literal["LoadBalancer", "NodePort", "port-forward"] = "port-forward"
    node_port: int | None = Field(default=None, ge=30000, le=32767)
    service_annotations: dict[str, Text] = Field(default={})
    storage: Text | None = "5Gi"
    grace_s: int = Field(default=60, ge=5, le=3600)

    @model_validator(mode="after")
    def _has_a_service(self) -> "KubernetesSuperLink":
        if self.node_port is not None and self.service != "NodePort":
            raise ValueError(
                f"node_port must be left out where service is {self.service}, got {self.node_port}"
            )
        try:
            check_annotations("service_annotations", self.service_annotations)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def host(self) -> str:
        """Where it listens, in its pod."""
        return "127.0.0.1"

    @property
    def port(self) -> None:
        """One is found where it starts."""
        return

    def link(self, gateway_port: int | None, *, jobs: bool = False) -> LinkOptions:
        """What the cluster is told."""
        return LinkOptions(
            pod=self.batch(Path()),
            service=self.service,
            port=gateway_port or PORT,
            node_port=self.node_port,
            service_annotations=self.service_annotations,
            jobs=jobs,
        )


AnySuperLink = Annotated[
    Annotated[SuperLinkConfig, Tag("local")]
    | Annotated[SlurmSuperLink, Tag("slurm")]
    | Annotated[KubernetesSuperLink, Tag("kubernetes")],
    Discriminator(kind_of),
]
KINDS: dict[str, type[Strict]] = {
    "local": SuperLinkConfig,
    "slurm": SlurmSuperLink,
    "kubernetes": KubernetesSuperLink,
}
