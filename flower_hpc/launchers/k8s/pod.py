"""What each pod of a site is: the wrapper of one SuperNode, as nobody in particular."""

from collections.abc import Iterable

from ..bundle import ADDRESS, HEALTH_PORT, HOME, POD, POD_UID, ROOT
from .options import KubernetesOptions
from .place import Manifest, Place


def pod_metadata(options: KubernetesOptions, place: Place) -> Manifest:
    """Of the template."""
    found: Manifest = {"labels": dict(options.labels) | place.labels}
    if options.annotations:
        found["annotations"] = dict(options.annotations)
    return found


def pod_spec(options: KubernetesOptions, place: Place) -> Manifest:
    """What one pod is: the node's wrapper, as nobody in particular, with nothing that it does not need."""
    jobs = options.standing is not None  # then it asks the cluster for them
    spec: Manifest = {
        "serviceAccountName": place.name if jobs else options.service_account or place.name,
        "automountServiceAccountToken": jobs,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": options.grace_s,
        "securityContext": pod_security(options),
        "containers": [_container(options, place)],
        "volumes": _volumes(options, place),
    }
    return spec | placement(options)


def placement(options: KubernetesOptions) -> Manifest:
    """Where a pod may run, and how its image is had."""
    found: Manifest = {
        "nodeSelector": dict(options.node_selector),
        "tolerations": [dict(one) for one in options.tolerations],
        "affinity": dict(options.affinity),
        "priorityClassName": options.priority_class,
        "runtimeClassName": options.runtime_class,
        "imagePullSecrets": [{"name": name} for name in options.pull_secrets],
    }
    return {key: value for key, value in found.items() if value}


def pod_security(options: KubernetesOptions) -> Manifest:
    """The restricted Pod Security Standard."""
    return {
        "runAsNonRoot": True,
        "runAsUser": options.user,
        "runAsGroup": options.user,
        "fsGroup": options.user,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Manifest:
    """Nothing to gain, nothing to change."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _container(options: KubernetesOptions, place: Place) -> Manifest:
    command = [options.python, "-m", "flower_hpc.launchers.bundled", f"{place.site}-{{ordinal}}"]
    made: Manifest = {
        "name": "supernode",
        "image": options.image,
        "command": [*command, "--grace-s", str(options.grace_s)],
        "env": [
            _field(POD, "metadata.name"),
            _field(POD_UID, "metadata.uid"),
            _field(ADDRESS, "status.podIP"),
            {"name": "HOME", "value": str(HOME)},
            {"name": "PYTHONUNBUFFERED", "value": "1"},
            *secret_env(options),
        ],
        "resources": resources(options),
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "bundle", "mountPath": str(ROOT), "readOnly": True},
            {"name": "state", "mountPath": str(HOME)},
            *scratch_mounts(),
            *data_mounts(options),
        ],
        # why a start ended stands in the pod's status, where the watch sees it: no log needs to be fetched
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "startupProbe": _probe(period_s=5, failures=120),
        "livenessProbe": _probe(period_s=20, failures=9),
        "readinessProbe": _probe(period_s=5, failures=3),
    }
    return made | ({"imagePullPolicy": options.pull_policy} if options.pull_policy else {})


def _probe(*, period_s: int, failures: int) -> Manifest:
    # patient: a SuperNode that its killed predecessor keeps from signing on is started anew for minutes
    return {
        "grpc": {"port": HEALTH_PORT},
        "periodSeconds": period_s,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _field(name: str, path: str) -> Manifest:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def secret_env(options: KubernetesOptions) -> Iterable[Manifest]:
    """Variables from the site's own Secrets."""
    for name, where in sorted(options.secret_env.items()):
        secret, _, key = where.partition("/")
        yield {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def resources(options: KubernetesOptions) -> Manifest:
    """What a container asks for; quantities are strings, and extended resources need a limit."""
    requests = {"cpu": options.cpus, "memory": options.mem}
    limits = {"memory": options.mem, options.gpu_resource: str(options.gpus) if options.gpus else None}
    both = {"requests": requests, "limits": limits}
    found = {
        what: {key: value for key, value in ours.items() if value} | dict(options.resources.get(what, {}))
        for what, ours in both.items()
    }
    return {what: mapping for what, mapping in found.items() if mapping}


def scratch_mounts() -> list[Manifest]:
    """What may be written beside the node's own folder."""
    return [{"name": "tmp", "mountPath": "/tmp"}, {"name": "shm", "mountPath": "/dev/shm"}]


def scratch_volumes() -> list[Manifest]:
    """The same, as volumes; loaders of data share memory in the second."""
    return [{"name": "tmp", "emptyDir": {}}, {"name": "shm", "emptyDir": {"medium": "Memory"}}]


def data_mounts(options: KubernetesOptions) -> list[Manifest]:
    """Where the site's volumes are seen."""
    return [
        {"name": f"data-{index}", "mountPath": volume.mount, "readOnly": volume.read_only}
        for index, volume in enumerate(options.volumes)
    ]


def data_volumes(options: KubernetesOptions) -> list[Manifest]:
    """The site's volumes."""
    return [{"name": f"data-{index}"} | volume.source for index, volume in enumerate(options.volumes)]


def _volumes(options: KubernetesOptions, place: Place) -> list[Manifest]:
    bundle = {"name": "bundle", "secret": {"secretName": place.name, "defaultMode": 0o440}}
    state = [] if options.storage else [{"name": "state", "emptyDir": {}}]
    return [bundle, *state, *scratch_volumes(), *data_volumes(options)]
