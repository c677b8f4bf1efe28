"""A site whose nodes are pods of a Kubernetes cluster.

::

    sites:
      cloud:
        launcher: kubernetes
        nodes: 8
        image: registry.example.org/me/flower-hpc:1     # see "The image" in the README
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
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from ..errors import ConfigError
from ..launchers.k8s import KubernetesOptions, Standing, Volume
from ..launchers.k8s.forms import check_quantity
from .fields import Strict, absolute, as_text
from .site import CloudSite

NUMBERS = (int, float)
LEAST = "1Mi"
"""Of memory and storage: 5 would be five bytes, and is a forgotten unit."""
Text = Annotated[str, BeforeValidator(as_text)]
"""Its form is checked by the launcher's options."""


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

    cpus: Text = "250m"
    mem: Text = "1Gi"
    api_server: Text | None = None

    @field_validator("cpus", mode="before")
    @classmethod
    def _cores(cls, value: Any) -> Any:
        return _words(value)


class KubernetesPods(Strict):
    """What is asked of a cluster; see the module's text."""

    launcher: Literal["kubernetes"]
    image: str
    namespace: Text | None = None
    kubeconfig: str | None = None
    context: Text | None = None
    cpus: Text | None = None
    mem: Text | None = None
    gpus: int = Field(default=0, ge=0, le=64)
    gpu_resource: Text = "nvidia.com/gpu"
    resources: dict[str, dict[str, Text]] = Field(default={})
    node_selector: dict[str, Text] = Field(default={})
    tolerations: list[dict[str, Any]] = Field(default=[])
    affinity: dict[str, Any] = Field(default={})
    priority_class: Text | None = None
    runtime_class: Text | None = None
    pull_secrets: list[Text] = Field(default=[])
    pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    service_account: Text | None = None
    secret_env: dict[str, str] = Field(default={})
    volumes: list[VolumeConfig] = Field(default=[])
    storage: Text | None = None
    storage_class: Text | None = None
    egress: list[str] = Field(default=[])
    user: int = Field(default=1000, ge=1, le=2**31 - 1)
    labels: dict[str, Text] = Field(default={})
    annotations: dict[str, Text] = Field(default={})
    python: Text = "python"

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
            for name in ("mem", "storage"):
                if getattr(self, name) is not None:
                    check_quantity(name, getattr(self, name), least=LEAST)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        if self.storage_class is not None and self.storage is None:
            raise ValueError(
                f"storage_class must be left out where there is no storage, got {self.storage_class!r}"
            )
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
            given = self.standing.model_dump(exclude_unset=True)
            raise ValueError(f"standing must be left out where mode is {self.mode}, got {given}")
        if self.network == "private" and self.mode == "on-demand":
            raise ValueError(
                "network must be host where mode is on-demand: apps ask the cluster, got 'private'"
            )
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
