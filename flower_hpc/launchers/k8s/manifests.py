"""A site as Kubernetes objects: pure translations, printed and sent as they are."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

from .forms import LABEL, check_dns, refuse
from .job import from_jobs, jobs_name, jobs_selected, towards_nodes
from .options import KubernetesOptions, split_egress
from .place import Manifest, Place
from .pod import pod_metadata, pod_spec
from .standing import api_servers, binding, light, rules

SUPERLINK = "flower-hpc-superlink"
NODE_LOCAL_DNS = "169.254.20.10/32"


def manifests(
    options: KubernetesOptions,
    place: Place,
    nodes: int,
    bundle: Mapping[str, bytes],
    reach: Sequence[tuple[str, int]],
) -> list[Manifest]:
    """The objects of a site, in the order to make them.

    Parameters
    ----------
    options : KubernetesOptions
        What the site asks for.
    place : Place
        Whose they are.
    nodes : int
        How many pods.
    bundle : mapping of str to bytes
        What the pods are given; see :mod:`flower_hpc.launchers.bundle`.
    reach : sequence of (str, int)
        Networks (CIDR) and ports at which the SuperLink is.

    Returns
    -------
    list of dict
        ServiceAccount (unless the site names one), Secret, NetworkPolicy, PodDisruptionBudget, StatefulSet;
        where rounds are jobs also their account and policy, and the SuperNodes' Role and RoleBinding.
    """
    own = [] if options.service_account else [_service_account(options, place)]
    return [
        *(own if options.standing is None else _for_jobs(options, place)),
        _secret(options, place, bundle),
        _network_policy(options, place, reach),
        _budget(options, place),
        _stateful_set(options, place, nodes),
    ]


def bundle_secret(place: Place, bundle: Mapping[str, bytes], namespace: str | None = None) -> Manifest:
    """The Secret alone, of a site that others make in their own cluster.

    Raises
    ------
    ConfigError
        A name that an object cannot have.
    """
    check_dns("name", place.name)
    if not LABEL.fullmatch(place.name):
        refuse("name", "at most 63 of a-z, 0-9 and '-'", place.name)
    alone = KubernetesOptions(folder=Path(), image="none", namespace=namespace)
    return _secret(alone, place, bundle)


def head(version: str, kind: str, options: KubernetesOptions, place: Place) -> Manifest:
    """What every object begins with."""
    metadata: Manifest = {"name": place.name, "labels": dict(options.labels) | place.labels}
    if options.namespace:
        metadata["namespace"] = options.namespace
    if options.annotations:
        metadata["annotations"] = dict(options.annotations)
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def _service_account(options: KubernetesOptions, place: Place) -> Manifest:
    return head("v1", "ServiceAccount", options, place) | {"automountServiceAccountToken": False}


def _for_jobs(options: KubernetesOptions, place: Place) -> list[Manifest]:
    version = "rbac.authorization.k8s.io/v1"
    account = _of_jobs(_service_account(options, place), place)
    policy = _of_jobs(_policy(options, place, jobs_selected(place), [], [towards_nodes(place)]), place)
    return [
        _service_account(options, place),
        *([] if options.service_account else [account]),
        head(version, "Role", options, place) | {"rules": rules()},
        head(version, "RoleBinding", options, place) | binding(options, place),
        policy,
    ]


def _of_jobs(manifest: Manifest, place: Place) -> Manifest:
    return manifest | {"metadata": manifest["metadata"] | {"name": jobs_name(place)}}


def _secret(options: KubernetesOptions, place: Place, bundle: Mapping[str, bytes]) -> Manifest:
    data = {name: base64.b64encode(content).decode() for name, content in sorted(bundle.items())}
    return head("v1", "Secret", options, place) | {"type": "Opaque", "data": data}


def _network_policy(options: KubernetesOptions, place: Place, reach: Sequence[tuple[str, int]]) -> Manifest:
    link = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": SUPERLINK}}, "namespaceSelector": {}}
    ingress = [] if options.standing is None else [from_jobs(place)]
    towards = [_towards(cidr, port) for cidr, port in (*reach, *api_servers(options))]
    return _policy(options, place, place.selected, ingress, [{"to": [link]}, *towards])


def _policy(
    options: KubernetesOptions,
    place: Place,
    chosen: Mapping[str, str],
    ingress: list[Manifest],
    egress: list[Manifest],
) -> Manifest:
    dns = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    names = {"to": [{"namespaceSelector": {}}, {"ipBlock": {"cidr": NODE_LOCAL_DNS}}], "ports": dns}
    spec = {
        "podSelector": {"matchLabels": dict(chosen)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": ingress,
        "egress": [names, *egress, *(_towards(*split_egress(where)) for where in options.egress)],
    }
    return head("networking.k8s.io/v1", "NetworkPolicy", options, place) | {"spec": spec}


def _towards(cidr: str, port: int | None) -> Manifest:
    ports = {} if port is None else {"ports": [{"protocol": "TCP", "port": port}]}
    return {"to": [{"ipBlock": {"cidr": cidr}}], **ports}


def _budget(options: KubernetesOptions, place: Place) -> Manifest:
    # drained hosts give up one node at a time: each then hands its work in and comes back elsewhere
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": place.selected}}
    return head("policy/v1", "PodDisruptionBudget", options, place) | {"spec": spec}


def _stateful_set(options: KubernetesOptions, place: Place, nodes: int) -> Manifest:
    spec: Manifest = {
        "replicas": nodes,
        "serviceName": place.name,
        "podManagementPolicy": "Parallel",
        # a node's settings are its own: who has changed is deleted one by one, by name
        "updateStrategy": {"type": "OnDelete"},
        "revisionHistoryLimit": 1,
        "selector": {"matchLabels": place.selected},
        "template": {"metadata": pod_metadata(options, place), "spec": pod_spec(light(options), place)},
    }
    if options.storage:
        spec["persistentVolumeClaimRetentionPolicy"] = {"whenDeleted": "Delete", "whenScaled": "Retain"}
        claim: Manifest = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": options.storage}},
        }
        if options.storage_class:
            claim["storageClassName"] = options.storage_class
        spec["volumeClaimTemplates"] = [{"metadata": {"name": "state"}, "spec": claim}]
    return head("apps/v1", "StatefulSet", options, place) | {"spec": spec}
