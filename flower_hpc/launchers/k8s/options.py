"""What a site asks of a Kubernetes cluster; touches none."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from . import forms
from .forms import refuse

RESERVED = (
    *("/etc", "/etc/flower-hpc", "/var", "/var/lib", "/var/lib/flower-hpc"),
    *("/tmp", "/dev", "/dev/shm", "/proc", "/sys"),
)
SOURCES = ("claim", "secret", "config_map", "host_path")


@dataclass(frozen=True, kw_only=True)
class Volume:
    """Something of the cluster's that pods see as a folder.

    Parameters
    ----------
    mount : str
        Where, an absolute path.
    claim, secret, config_map, host_path : str, optional
        What, one of them: a PersistentVolumeClaim, a Secret, a ConfigMap, a folder of the host.
    read_only : bool
        Default True: private data are for reading.
    """

    mount: str
    claim: str | None = None
    secret: str | None = None
    config_map: str | None = None
    host_path: str | None = None
    read_only: bool = True

    def __post_init__(self) -> None:
        if not forms.is_path(self.mount) or ":" in self.mount or forms.plain(self.mount) in ("/", *RESERVED):
            refuse("volumes", "mounted at an absolute path of their own", self.mount)
        given = [name for name in SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            found = ", ".join(given) or "none"
            raise ConfigError(f"volumes must be mappings with one of {', '.join(SOURCES)}, got {found}")
        if self.host_path is None:
            forms.check_dns(f"volumes.{given[0]}", getattr(self, given[0]))
        elif not forms.is_path(self.host_path):
            refuse("volumes.host_path", "an absolute path", self.host_path)

    @property
    def source(self) -> dict[str, Any]:
        """As the API has it."""
        if self.claim is not None:
            return {"persistentVolumeClaim": {"claimName": self.claim, "readOnly": self.read_only}}
        if self.secret is not None:
            return {"secret": {"secretName": self.secret}}
        if self.config_map is not None:
            return {"configMap": {"name": self.config_map}}
        return {"hostPath": {"path": self.host_path}}


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The light SuperNodes of a site that trains in a job for each message.

    Parameters
    ----------
    cpus, mem : str
        Of each; default ``250m`` and ``1Gi``.
    api_server : str, optional
        Where pods find the cluster's API, ``CIDR`` or ``CIDR:PORT``; default: anywhere at ports 443 and 6443.
    """

    cpus: str = "250m"
    mem: str = "1Gi"
    api_server: str | None = None

    def __post_init__(self) -> None:
        forms.check_quantity("standing.cpus", self.cpus)
        forms.check_quantity("standing.mem", self.mem, least="1Mi")
        if self.api_server is not None:
            split_egress(self.api_server, "standing.api_server")


@dataclass(frozen=True, kw_only=True)
class KubernetesOptions:
    """What a site asks of a cluster.

    Parameters
    ----------
    folder : Path
        The site's folder on this machine, with what goes into the pods' bundle.
    image : str
        With Python, this package and what the apps import.
    namespace : str, optional
        Default: that of the kubeconfig's context, else ``default``.
    kubeconfig : Path, optional
        Default: ``$KUBECONFIG``, ``~/.kube/config``, or inside a pod its service account.
    context : str, optional
        Of the kubeconfig; default: its current one.
    cpus, mem : str, optional
        Quantities such as ``2`` or ``500m``, and ``4Gi``: requested, and the limit of memory. Default: none.
    gpus : int
        Default 0.
    gpu_resource : str
        What the cluster calls them; default ``nvidia.com/gpu``.
    resources : mapping
        ``requests`` and ``limits`` beyond these, as in a pod.
    node_selector : mapping of str to str
        Labels of the nodes to run on.
    tolerations : tuple of mapping
        As in a pod.
    affinity : mapping
        As in a pod.
    priority_class, runtime_class : str, optional
        By name.
    pull_secrets : tuple of str
        Names of Secrets of the image's registry.
    pull_policy : {"Always", "IfNotPresent", "Never"}, optional
        Default: the cluster's own.
    service_account : str, optional
        Of an account that is there; default: one of the site's own, without a token.
    secret_env : mapping of str to str
        Environment variables from Secrets: ``NAME: secret/key``.
    volumes : tuple of Volume
        Data of the site.
    storage : str, optional
        Size of a claim for each node's state, such as ``10Gi``; default: it lives as long as its pod.
    storage_class : str, optional
        Of that claim; default: the cluster's own.
    egress : tuple of str
        Where pods may connect to beside the SuperLink: ``CIDR`` or ``CIDR:PORT``.
    user : int
        Numeric user and group that pods run as, never 0; default 1000.
    grace_s : int
        Between being asked to leave and being killed; default 60.
    labels, annotations : mapping of str to str
        More of them on every object and pod.
    python : str
        The image's interpreter; default ``python``.
    standing : Standing, optional
        Where it is given, each training message is a job with all of the above, and the SuperNodes' own
        pods are light. Needs a ``namespace``.
    """

    folder: Path
    image: str
    namespace: str | None = None
    kubeconfig: Path | None = None
    context: str | None = None
    cpus: str | None = None
    mem: str | None = None
    gpus: int = 0
    gpu_resource: str = "nvidia.com/gpu"
    resources: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    affinity: Mapping[str, Any] = field(default_factory=dict)
    priority_class: str | None = None
    runtime_class: str | None = None
    pull_secrets: tuple[str, ...] = ()
    pull_policy: str | None = None
    service_account: str | None = None
    secret_env: Mapping[str, str] = field(default_factory=dict)
    volumes: tuple[Volume, ...] = ()
    storage: str | None = None
    storage_class: str | None = None
    egress: tuple[str, ...] = ()
    user: int = 1000
    grace_s: int = 60
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    python: str = "python"
    standing: Standing | None = None

    def __post_init__(self) -> None:
        forms.check_image(self.image)
        forms.check_command("python", self.python)
        if self.namespace is not None and not forms.LABEL.fullmatch(self.namespace):
            refuse("namespace", "1 to 63 of a-z, 0-9 and '-', not '-' at an end", self.namespace)
        if self.context is not None and not (self.context and self.context.isprintable()):
            refuse("context", "the name of a context of the kubeconfig", self.context)
        for name in ("cpus", "mem", "storage"):
            if getattr(self, name) is not None:
                forms.check_quantity(name, getattr(self, name))
        for name in ("priority_class", "runtime_class", "service_account", "storage_class"):
            if getattr(self, name) is not None:
                forms.check_dns(name, getattr(self, name))
        for secret in self.pull_secrets:
            forms.check_dns("pull_secrets", secret)
        forms.check_resource("gpu_resource", self.gpu_resource)
        forms.check_resources(self.resources)
        forms.check_labels("node_selector", self.node_selector)
        forms.check_labels("labels", self.labels, taken=forms.OURS)
        forms.check_annotations("annotations", self.annotations)
        forms.check_tolerations(self.tolerations)
        forms.check_affinity(self.affinity)
        forms.check_secret_env(self.secret_env)
        mounts = [forms.plain(volume.mount) for volume in self.volumes]
        if twice := [mount for mount in mounts if mounts.count(mount) > 1]:
            refuse("volumes", "mounted each at a path of its own", twice[0])
        if self.standing is not None and self.namespace is None:
            refuse("namespace", "given where rounds are jobs: best, one of the site's own", None)
        if self.user < 1:
            refuse("user", "an integer >= 1 (pods never run as root)", self.user)
        for where in self.egress:
            split_egress(where)


def split_egress(where: str, name: str = "egress") -> tuple[str, int | None]:
    """``CIDR`` or ``CIDR:PORT``; ConfigError for anything else."""
    net, colon, port = where, "", ""
    if where.startswith("["):
        net, colon, port = where[1:].partition("]:")
        net = net.rstrip("]")
    elif where.count(":") == 1:
        net, colon, port = where.partition(":")
    try:
        ipaddress.ip_network(net)
        number = int(port) if colon else None
        if number is not None and not 0 < number < 65536:
            raise ValueError
    except ValueError:
        words = f"{name} must be CIDR or CIDR:PORT ([CIDR]:PORT for IPv6), got {where!r}"
        raise ConfigError(words) from None
    return net, number
