"""A site whose nodes are pods of a Kubernetes cluster.

::

    sites:
      cloud:
        launcher: kubernetes
        nodes: 8
        image: ghcr.io/me/flower-hpc:1     # see "The image" in the README
        namespace: fl                      # default: the kubeconfig's
        context: eks-frankfurt             # and kubeconfig: default: the current one
        via: gateway.example.org:9092      # where pods reach the gateway; default: gateway.address
        cpus: 4                            # and mem, gpus: of a node
        mem: 16Gi
        gpus: 1
        node_selector: {karpenter.sh/capacity-type: spot}
        tolerations: [{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}]
        volumes: [{mount: /data, claim: scans}]        # read-only by default
        data_dir: /data
        storage: 10Gi                      # a claim for each node's state; default: none lasts
        grace_s: 60                        # to hand work in
        mode: pilot                        # a pod a node; on-demand = light ones, a Job for each training
        standing: {cpus: 250m, mem: 1Gi}   # of the light pods; the rest above is the Jobs'
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from ..errors import ConfigError
from ..launchers.k8s import KubernetesOptions, Standing, Volume
from .fields import Strict, Word, absolute
from .site import CloudSite

NUMBERS = (int, float)


class VolumeConfig(Strict):
    """Something of the cluster's that pods see as a folder."""

    mount: str
    claim: str | None = None
    secret: str | None = None
    config_map: str | None = None
    host_path: str | None = None
    read_only: bool = True


class StandingConfig(Strict):
    """The light SuperNodes of a site in mode on-demand."""

    cpus: Word = "250m"
    mem: Word = "1Gi"
    api_server: Word | None = None

    @field_validator("cpus", mode="before")
    @classmethod
    def _cores(cls, value: Any) -> Any:
        return _words(value)


class KubernetesPods(Strict):
    """What is asked of a cluster; see the module's text."""

    launcher: Literal["kubernetes"]
    image: Word
    namespace: Word | None = None
    kubeconfig: str | None = None
    context: Word | None = None
    cpus: Word | None = None
    mem: Word | None = None
    gpus: int = Field(default=0, ge=0, le=64)
    gpu_resource: Word = "nvidia.com/gpu"
    resources: dict[str, dict[str, Word]] = Field(default={})
    node_selector: dict[str, Word] = Field(default={})
    tolerations: list[dict[str, Any]] = Field(default=[])
    affinity: dict[str, Any] = Field(default={})
    priority_class: Word | None = None
    runtime_class: Word | None = None
    pull_secrets: list[Word] = Field(default=[])
    pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    service_account: Word | None = None
    secret_env: dict[str, str] = Field(default={})
    volumes: list[VolumeConfig] = Field(default=[])
    storage: Word | None = None
    storage_class: Word | None = None
    egress: list[str] = Field(default=[])
    user: int = Field(default=1000, ge=1, le=2**31)
    labels: dict[str, Word] = Field(default={})
    annotations: dict[str, Word] = Field(default={})
    python: Word = "python"

    @field_validator("cpus", mode="before")
    @classmethod
    def _cores(cls, value: Any) -> Any:
        return _words(value)

    @field_validator("kubeconfig")
    @classmethod
    def _kubeconfig(cls, value: str | None, info: ValidationInfo) -> str | None:
        return absolute(value, info)

    @model_validator(mode="after")
    def _possible(self) -> "KubernetesPods":
        try:
            self.batch(Path("/checked"))
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self

    def batch(self, folder: Path) -> KubernetesOptions:
        """What the launcher is told; ``folder`` holds what goes into the pods' bundle."""
        same = {name: getattr(self, name) for name in SAME}
        return KubernetesOptions(
            folder=folder,
            kubeconfig=None if self.kubeconfig is None else Path(self.kubeconfig),
            tolerations=tuple(self.tolerations),
            pull_secrets=tuple(self.pull_secrets),
            volumes=tuple(Volume(**each.model_dump()) for each in self.volumes),
            egress=tuple(self.egress),
            grace_s=getattr(self, "grace_s", 60),
            standing=self._standing(),
            **same,
        )

    def _standing(self) -> Standing | None:
        return None


def _words(value: Any) -> Any:
    return str(value) if isinstance(value, NUMBERS) and not isinstance(value, bool) else value


SAME = (
    *("image", "namespace", "context", "cpus", "mem", "gpus", "gpu_resource", "resources", "node_selector"),
    *("affinity", "priority_class", "runtime_class", "pull_policy", "service_account", "secret_env"),
    *("storage", "storage_class", "user", "labels", "annotations", "python"),
)


class KubernetesSite(KubernetesPods, CloudSite):
    """Nodes that are pods."""

    launcher: Literal["kubernetes"]  # type: ignore[assignment]
    mode: Literal["pilot", "on-demand"] = "pilot"
    standing: StandingConfig | None = None

    @model_validator(mode="after")
    def _on_demand(self) -> "KubernetesSite":
        if self.standing is not None and self.mode != "on-demand":
            raise ValueError("standing must go with mode: on-demand: other nodes do their work themselves")
        if self.network == "private" and self.mode == "on-demand":
            raise ValueError("network must be host where mode is on-demand: apps ask the cluster for Jobs")
        return self

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and not value.startswith("/"):
            raise ValueError("an absolute path inside the pods")
        return value

    def _standing(self) -> Standing | None:
        given = self.standing or StandingConfig()
        return Standing(**given.model_dump()) if self.mode == "on-demand" else None
