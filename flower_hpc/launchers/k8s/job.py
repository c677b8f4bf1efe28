"""One call as a Kubernetes Job and its Secret: pure translations."""

import base64
import json
from collections.abc import Mapping
from typing import Any

from ..bundle import HOME, ROOT
from ..calls.server import PORTS
from .options import KubernetesOptions
from .place import FEDERATION, MANAGER, SITE, Manifest, Place
from .pod import (
    container_security,
    data_mounts,
    data_volumes,
    placement,
    pod_security,
    resources,
    scratch_mounts,
    scratch_volumes,
    secret_env,
)

JOB, CALLER = "flower-hpc/job", "flower-hpc/caller"
CONTAINER = "call"
EXECUTOR = "flower_hpc.launchers.kubernetes_executor:from_settings"
TTL_S = 300
"""What a process that was killed leaves is removed by the cluster so long after it ended."""


def jobs_name(place: Place) -> str:
    """Of what all jobs of a site share."""
    return f"{place.name}-jobs"


def job_labels(place: Place) -> dict[str, str]:
    """That all jobs of a site have, and their pods; a site's own pods are chosen by others."""
    whose = {FEDERATION: place.federation, SITE: place.site}
    return {"app.kubernetes.io/name": "flower-hpc-job", **jobs_selected(place), **whose}


def jobs_selected(place: Place) -> dict[str, str]:
    """By which a site's jobs are chosen."""
    return {"app.kubernetes.io/instance": jobs_name(place), "app.kubernetes.io/managed-by": MANAGER}


def jobs_selector(place: Place) -> str:
    """The same, as the API asks for it."""
    return ",".join(f"{key}={value}" for key, value in jobs_selected(place).items())


def job(
    options: KubernetesOptions,
    place: Place,
    name: str,
    *,
    caller: str,
    owner: tuple[str, str] | None,
    minutes: int | None,
) -> Manifest:
    """The Job of one call; its Secret has its name.

    Parameters
    ----------
    options : KubernetesOptions
        What a job asks for.
    place : Place
        Of the site.
    name : str
        Its own; whoever creates it twice creates it once.
    caller : str
        Label of the process that waits for it.
    owner : (str, str), optional
        Name and uid of the pod that waits: when it goes, its jobs go.
    minutes : int, optional
        Its time limit, queue included; default none.
    """
    metadata = _metadata(options, place, name, caller)
    if owner is not None:
        metadata["ownerReferences"] = [_owner("v1", "Pod", *owner)]
    spec: Manifest = {
        "backoffLimit": 0,  # what is lost is submitted again with the time that is left
        "completions": 1,
        "parallelism": 1,
        "ttlSecondsAfterFinished": TTL_S,
        "template": {
            "metadata": {key: value for key, value in metadata.items() if key in ("labels", "annotations")},
            "spec": _pod_spec(options, place, name),
        },
    }
    if minutes is not None:
        spec["activeDeadlineSeconds"] = 60 * minutes
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def job_secret(
    options: KubernetesOptions, place: Place, made: Manifest, *, caller: str, content: Mapping[str, Any]
) -> Manifest:
    """Where a Job's pod reads whom to ask; it goes with the Job ``made``."""
    name, uid = made["metadata"]["name"], made["metadata"]["uid"]
    metadata = _metadata(options, place, name, caller)
    metadata["ownerReferences"] = [_owner("batch/v1", "Job", name, uid)]
    data = {"call.json": base64.b64encode(json.dumps(dict(content)).encode()).decode()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "immutable": True,
        "metadata": metadata,
        "data": data,
    }


def settings_of(options: KubernetesOptions, place: Place) -> dict[str, Any]:
    """Plain values from which a pod of the site makes the executor; nothing secret."""
    here = ("folder", "kubeconfig", "context", "standing", "volumes", "storage", "storage_class")
    values = {key: value for key, value in vars(options).items() if key not in here}
    given = {key: value for key, value in values.items() if value not in (None, (), {}, 0)}
    volumes = [
        {key: value for key, value in vars(each).items() if value is not None} for each in options.volumes
    ]
    made = {"executor": EXECUTOR, "place": vars(place)}
    return given | ({"volumes": volumes} if volumes else {}) | made


def towards_nodes(place: Place) -> Manifest:
    """What a job's pod may connect to: the SuperNodes' pods, where they serve calls."""
    return {"to": [{"podSelector": {"matchLabels": place.selected}}], "ports": [_ports()]}


def from_jobs(place: Place) -> Manifest:
    """Who may connect to a SuperNode's pod: jobs of its site."""
    return {"from": [{"podSelector": {"matchLabels": jobs_selected(place)}}], "ports": [_ports()]}


def _ports() -> Manifest:
    return {"protocol": "TCP", "port": PORTS[0], "endPort": PORTS[1]}


def _metadata(options: KubernetesOptions, place: Place, name: str, caller: str) -> Manifest:
    labels = dict(options.labels) | job_labels(place) | {JOB: name, CALLER: caller}
    found: Manifest = {"name": name, "labels": labels}
    if options.namespace:
        found["namespace"] = options.namespace
    if options.annotations:
        found["annotations"] = dict(options.annotations)
    return found


def _owner(version: str, kind: str, name: str, uid: str) -> Manifest:
    return {"apiVersion": version, "kind": kind, "name": name, "uid": uid}


def _pod_spec(options: KubernetesOptions, place: Place, name: str) -> Manifest:
    call = {"name": "call", "secret": {"secretName": name, "defaultMode": 0o440}}
    home = {"name": "state", "emptyDir": {}}
    spec: Manifest = {
        "restartPolicy": "Never",
        "serviceAccountName": options.service_account or jobs_name(place),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": options.grace_s,
        "securityContext": pod_security(options),
        "containers": [_container(options)],
        "volumes": [call, home, *scratch_volumes(), *data_volumes(options)],
    }
    return spec | placement(options)


def _container(options: KubernetesOptions) -> Manifest:
    made: Manifest = {
        "name": CONTAINER,
        "image": options.image,
        "command": [options.python, "-m", "flower_hpc.launchers.calls.runner", str(ROOT)],
        "env": [
            {"name": "HOME", "value": str(HOME)},
            {"name": "PYTHONUNBUFFERED", "value": "1"},
            *secret_env(options),
        ],
        "resources": resources(options),
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "call", "mountPath": str(ROOT), "readOnly": True},
            {"name": "state", "mountPath": str(HOME)},
            *scratch_mounts(),
            *data_mounts(options),
        ],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    return made | ({"imagePullPolicy": options.pull_policy} if options.pull_policy else {})
