"""A SuperLink as Kubernetes objects: one pod with the controller, the SuperLink and the gateway; pure.

The controller inside makes the sites' objects, so its account has the Role of :mod:`.permissions`, in its
own namespace and no more. Nodes reach the gateway's port through a Service; nothing else listens.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import ConfigError
from ..bundle import HOME, ROOT
from .forms import check_annotations
from .manifests import head
from .options import KubernetesOptions
from .permissions import role
from .place import Manifest, Place
from .pod import (
    container_security,
    data_mounts,
    data_volumes,
    placement,
    pod_metadata,
    pod_security,
    resources,
    scratch_mounts,
    scratch_volumes,
    secret_env,
)

FILE, CONFIG = "federation.yaml", "flower-hpc/config"
CONTAINER, PORT = "superlink", 8443
SERVICES = {"LoadBalancer": "LoadBalancer", "NodePort": "NodePort", "port-forward": "ClusterIP"}


@dataclass(frozen=True, kw_only=True)
class LinkOptions:
    """What a SuperLink asks of a cluster.

    Parameters
    ----------
    pod : KubernetesOptions
        Its image, namespace (which must be said), resources and place, as of a site. ``storage`` keeps the
        state folder.
    service : {"LoadBalancer", "NodePort", "port-forward"}
        How nodes beyond the cluster come in; those inside always can. Default ``port-forward``: they cannot.
    port : int
        Of the gateway and of the Service; default 8443.
    node_port : int, optional
        Of the cluster's hosts, for ``NodePort``; default: the cluster chooses.
    service_annotations : mapping of str to str
        Of the Service, where a cloud's load balancer takes its settings.
    jobs : bool
        Whether sites of it run rounds as jobs, for which more rights are needed; default False.
    """

    pod: KubernetesOptions
    service: str = "port-forward"
    port: int = PORT
    node_port: int | None = None
    service_annotations: Mapping[str, str] = field(default_factory=dict)
    jobs: bool = False

    def __post_init__(self) -> None:
        if self.service not in SERVICES:
            raise ConfigError(f"service must be one of: {', '.join(SERVICES)}; got {self.service!r}")
        if self.pod.namespace is None:
            raise ConfigError("namespace must be said for a SuperLink: its account's rights name it")
        if not 1024 <= self.port <= 65535:
            raise ConfigError(f"port must be from 1024 to 65535 (it is not root's), got {self.port}")
        if self.node_port is not None and self.service != "NodePort":
            raise ConfigError(f"node_port must be left out where service is {self.service}")
        check_annotations("service_annotations", self.service_annotations)


def place_of(federation: str) -> Place:
    """Whose objects they are."""
    return Place(federation, "superlink", f"flower-hpc-{federation}", role="superlink")


def link_manifests(options: LinkOptions, place: Place, federation_yaml: str) -> list[Manifest]:
    """The objects of a SuperLink, in the order to make them.

    Parameters
    ----------
    options : LinkOptions
        What it asks for.
    place : Place
        Whose they are; see :func:`place_of`.
    federation_yaml : str
        The file that the controller inside keeps; its SuperLink is a local one.

    Returns
    -------
    list of dict
        ServiceAccount, Role and RoleBinding (unless an account is named), PersistentVolumeClaim (where
        there is ``storage``), ConfigMap, NetworkPolicy, Service, Deployment.
    """
    pod = options.pod
    own = [] if pod.service_account else _account(pod, place, jobs=options.jobs)
    claim = [_claim(pod, place)] if pod.storage else []
    config = head("v1", "ConfigMap", pod, place) | {"data": {FILE: federation_yaml}}
    return [
        *own,
        *claim,
        config,
        _policy(options, place),
        _service(options, place),
        _deployment(options, place, federation_yaml),
    ]


def _account(pod: KubernetesOptions, place: Place, *, jobs: bool) -> list[Manifest]:
    group = "rbac.authorization.k8s.io"
    account = head("v1", "ServiceAccount", pod, place) | {"automountServiceAccountToken": False}
    rules = head(f"{group}/v1", "Role", pod, place) | {"rules": role(place.name, jobs=jobs)["rules"]}
    subject = {"kind": "ServiceAccount", "name": place.name, "namespace": pod.namespace}
    binding = head(f"{group}/v1", "RoleBinding", pod, place) | {
        "roleRef": {"apiGroup": group, "kind": "Role", "name": place.name},
        "subjects": [subject],
    }
    return [account, rules, binding]


def _claim(pod: KubernetesOptions, place: Place) -> Manifest:
    spec: Manifest = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": pod.storage}},
    }
    if pod.storage_class:
        spec["storageClassName"] = pod.storage_class
    return head("v1", "PersistentVolumeClaim", pod, place) | {"spec": spec}


def _policy(options: LinkOptions, place: Place) -> Manifest:
    spec = {
        "podSelector": {"matchLabels": place.selected},
        "policyTypes": ["Ingress"],
        "ingress": [{"ports": [{"protocol": "TCP", "port": options.port}]}],
    }
    return head("networking.k8s.io/v1", "NetworkPolicy", options.pod, place) | {"spec": spec}


def _service(options: LinkOptions, place: Place) -> Manifest:
    made = head("v1", "Service", options.pod, place)
    if options.service_annotations:
        made["metadata"].setdefault("annotations", {}).update(options.service_annotations)
    port: dict[str, Any] = {
        "name": "gateway",
        "protocol": "TCP",
        "port": options.port,
        "targetPort": "gateway",
    }
    if options.node_port is not None:
        port["nodePort"] = options.node_port
    spec = {"type": SERVICES[options.service], "selector": place.selected, "ports": [port]}
    return made | {"spec": spec}


def _deployment(options: LinkOptions, place: Place, federation_yaml: str) -> Manifest:
    metadata = pod_metadata(options.pod, place)
    # who reads the file does so at the start: another file is another pod
    digest = hashlib.sha256(federation_yaml.encode()).hexdigest()[:16]
    metadata["annotations"] = metadata.get("annotations", {}) | {CONFIG: digest}
    spec = {
        "replicas": 1,
        # two at once would fight over the database, and over the sites
        "strategy": {"type": "Recreate"},
        "revisionHistoryLimit": 1,
        "selector": {"matchLabels": place.selected},
        "template": {"metadata": metadata, "spec": _pod_spec(options, place)},
    }
    return head("apps/v1", "Deployment", options.pod, place) | {"spec": spec}


def _pod_spec(options: LinkOptions, place: Place) -> Manifest:
    pod = options.pod
    state: Manifest = (
        {"persistentVolumeClaim": {"claimName": place.name}} if pod.storage else {"emptyDir": {}}
    )
    spec: Manifest = {
        "serviceAccountName": pod.service_account or place.name,
        "automountServiceAccountToken": True,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": pod.grace_s,
        "securityContext": pod_security(pod),
        "containers": [_container(options)],
        "volumes": [
            {"name": "config", "configMap": {"name": place.name}},
            {"name": "state"} | state,
            *scratch_volumes(),
            *data_volumes(pod),
        ],
    }
    return spec | placement(pod)


def _container(options: LinkOptions) -> Manifest:
    pod = options.pod
    made: Manifest = {
        "name": CONTAINER,
        "image": pod.image,
        "command": ["flower-hpc", "up", "--foreground", str(ROOT / FILE)],
        "env": [
            {"name": "HOME", "value": str(HOME)},
            {"name": "PYTHONUNBUFFERED", "value": "1"},
            *secret_env(pod),
        ],
        "ports": [{"name": "gateway", "containerPort": options.port, "protocol": "TCP"}],
        "resources": resources(pod),
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "config", "mountPath": str(ROOT), "readOnly": True},
            {"name": "state", "mountPath": str(HOME)},
            *scratch_mounts(),
            *data_mounts(pod),
        ],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "readinessProbe": {"tcpSocket": {"port": "gateway"}, "periodSeconds": 5, "failureThreshold": 3},
    }
    return made | ({"imagePullPolicy": pod.pull_policy} if pod.pull_policy else {})
