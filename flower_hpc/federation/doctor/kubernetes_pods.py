"""A site's pods for the doctor: how they are while the federation is up, and what is left when it is down."""

import re
from collections.abc import Iterator, Mapping

from ...clock import WALL
from ...errors import LaunchError
from ...launchers import JobState
from ...launchers.k8s import KubernetesOptions
from ...launchers.k8s.api import Api
from ...launchers.k8s.applied import Applied
from ...launchers.k8s.manifests import manifests
from ...launchers.k8s.place import FEDERATION, SITE, Manifest, Place
from ...launchers.k8s.state import read, seconds
from .finding import Finding, ok, problem, warning

SHOWN = 20
THEIRS, JOBS = "`flower-hpc down` of whoever started it", "-jobs"
INSTANCE = "app.kubernetes.io/instance"
KINDS = ("statefulset", "networkpolicy", "poddisruptionbudget", "secret", "serviceaccount")
MENDS = (
    (
        r"Insufficient|Unschedulable|affinity|taint",
        "cpus, mem, gpus, node_selector, tolerations: as the nodes",
    ),
    (r"Image|pull", "image: one that the cluster can pull; pull_secrets where its registry wants a login"),
    (r"OOMKilled", "mem: more"),
    (r"CreateContainer", "the Secrets and ConfigMaps that secret_env and volumes name must be there"),
    (
        r"quota|forbidden",
        "less of what the reason names, or a larger quota by the namespace's administrators",
    ),
)


def pods(api: Api, place: Place, nodes: int) -> Iterator[Finding]:
    """One line for all that run, and one for each that does not."""
    try:
        found = sorted(api.list("Pod", place.selector)["items"], key=by_number)
    except LaunchError as error:
        yield warning("pods", str(error), "`flower-hpc status` shows what the controller sees")
        return
    states = [read(pod) for pod in found]
    waits = [status for status in states if status.state is not JobState.RUNNING]
    if len(found) < nodes:
        why = Applied(api, place).why_no_pod() or "the cluster does not say why"
        yield warning("pods", f"{len(found)} of {nodes} are made: {why}", mend_of(why, "patience"))
    yield ok("pods", f"{len(found) - len(waits)} of {len(found)} run")
    for status in waits:
        node, words = f"{place.site}{status.job.removeprefix(place.name)}", f"{status.job}: {status.reason}"
        yield warning(f"pod of {node}", words, mend_of(words, f"`flower-hpc logs {node}` may tell more"))


def left(api: Api, options: KubernetesOptions, place: Place) -> Iterator[Finding]:
    """What is in the namespace of the federation's name although it is down, whoever started it."""
    try:
        found = api.list("Pod", f"{FEDERATION}={place.federation}")["items"]
        objects = [each for each in manifests(options, place, 0, {}, ()) if there(api, each)]
    except LaunchError as error:
        yield warning("left over", str(error), f"look by hand for the label {FEDERATION}={place.federation}")
        return
    groups: dict[str, list[Manifest]] = {place.name: []} if objects else {}
    for pod in found:
        groups.setdefault(pod["metadata"]["labels"].get(INSTANCE, "?"), []).append(pod)
    for name, those in groups.items():
        kinds = [each["kind"] for each in objects if name == place.name]
        own = f"{', '.join(dict.fromkeys(kinds))} {name}" if kinds else ""
        words = "; ".join(filter(None, (short(those), own)))
        mine = name.startswith(place.name)
        ours = "`flower-hpc up` goes on with it, `flower-hpc down` ends it" if mine else THEIRS
        way = f"{ours}, or {by_hand(name, api.namespace, jobs=options.standing is not None)}"
        yield problem("left over", f"the federation is down, and there is {words}", way)
    if not groups:
        words = f"nothing of federation {place.federation} is in namespace {api.namespace}"
        yield ok("left over", words)


def by_hand(name: str, namespace: str, *, jobs: bool) -> str:
    """The command that ends it; by names, since the README's Role does not let one list these kinds."""
    if name.endswith(JOBS):
        return f"kubectl delete -n {namespace} job -l {INSTANCE}={name}"
    kinds = [*KINDS, "rolebinding", "role"] if jobs else KINDS
    objects = " ".join(f"{kind}/{name}" for kind in kinds)
    return f"kubectl delete -n {namespace} --wait=false --ignore-not-found {objects}"


def there(api: Api, manifest: Manifest) -> bool:
    """Whether an object of its kind and name is in the cluster."""
    return api.is_there(manifest["kind"], manifest["metadata"]["name"])


def by_number(pod: Mapping[str, Manifest]) -> tuple[int, str]:
    """In the order of the nodes."""
    name = str(pod["metadata"]["name"])
    return len(name), name


def short(found: list[Manifest]) -> str:
    """Pods in words: whose, how many, how old, the first of many by name."""
    if not found:
        return ""
    site = found[0]["metadata"]["labels"].get(SITE, "?")
    oldest = min(seconds(pod["metadata"]["creationTimestamp"]) for pod in found)
    names = ", ".join(str(pod["metadata"]["name"]) for pod in found[:SHOWN])
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"site {site} with {len(found)} pods, {(WALL.wall() - oldest) / 3600:.1f} h old: {names}{more}"


def mend_of(words: str, otherwise: str) -> str:
    """What helps a pod that waits for this reason."""
    return next((mend for pattern, mend in MENDS if re.search(pattern, words)), otherwise)
