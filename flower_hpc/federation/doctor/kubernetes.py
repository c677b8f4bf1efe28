"""What the doctor checks of a site on Kubernetes: nothing is started, and nothing lasts."""

import importlib.util
import ipaddress
import socket
from collections.abc import Callable, Iterator
from importlib.metadata import version

from ...errors import LaunchError
from ...launchers.k8s import KubernetesOptions
from ...launchers.k8s.api import Api
from ...launchers.k8s.connect import NONE, ClusterError
from ...launchers.k8s.manifests import manifests
from ...launchers.k8s.permissions import lacking
from ...launchers.k8s.place import Place
from ...launchers.k8s.reach import reached
from ...launchers.ports import join, split
from ..config import FederationConfig
from ..desired import Desired
from ..jobs import place_of, site_folder
from ..kubernetes_site import KubernetesSite
from ..site import CloudSite
from ..state import StateDir
from .finding import Finding, Health, ok, problem, warning
from .kubernetes_pods import left, pods

CREDENTIALS = "`kubectl get pods` should work here: renew the kubeconfig's token, or its login plugin's"
ROLE = "have the Role of the README's section 'On Kubernetes' bound to this user in this namespace"
TRIES = 2


def examine_kubernetes(
    name: str,
    site: KubernetesSite,
    config: FederationConfig,
    state: StateDir,
    *,
    is_up: bool,
    connect: Callable[[KubernetesOptions], Api] = lambda asked: Api(
        asked.kubeconfig, asked.context, asked.namespace, tries=TRIES
    ),
) -> Iterator[Finding]:
    """All that can be asked, one finding at a time."""
    yield (library := package())
    yield gateway(config, site)
    if library.state is Health.PROBLEM:
        return
    options, api = site.batch(site_folder(config, name, state)), connect(site.batch(state.path))
    place = place_of(config, name, state)
    try:
        yield (there := cluster(api))
        if there.state is Health.PROBLEM:
            return
        yield (may := permissions(api, jobs=options.standing is not None))
        if may.state is not Health.PROBLEM:  # what is not permitted is named there already
            yield from objects(api, options, place, site.nodes, door_of(config, site))
        if is_up:
            yield from pods(api, place, Desired.read(state).nodes.get(name, site.nodes))
        else:
            yield from left(api, options, place)
    finally:
        api.close()


def package() -> Finding:
    """Whether the library that speaks to clusters is there."""
    if importlib.util.find_spec("kubernetes") is None:
        return problem("kubernetes", "not installed", "pip install 'flower-hpc[kubernetes]'")
    return ok("kubernetes", version("kubernetes"))


def cluster(api: Api) -> Finding:
    """Whether a cluster answers, and takes us for somebody."""
    try:
        api.rules()
    except ClusterError as error:
        words = str(error)
        if error.status == NONE:
            return problem("cluster", words, "kubeconfig and context: a file and a name in it; or KUBECONFIG")
        if error.status == 0:
            return problem("cluster", words, "`kubectl version` should work here: VPN, proxy, or the context")
        if error.status == 401 or "system:anonymous" in words:
            return problem("credentials", words, CREDENTIALS)
        # who may not ask what it may is told so by the next check
        return warning("cluster", f"{api.where}, namespace {api.namespace}: {words}", "see the next lines")
    return ok("cluster", f"{api.where}, namespace {api.namespace}")


def permissions(api: Api, *, jobs: bool) -> Finding:
    """Whether this user may do all that a site needs, up to its deletion."""
    try:
        rules, complete = api.rules()
    except LaunchError as error:
        return warning("permissions", f"not known: {error}", ROLE)
    lacks = ", ".join(lacking(rules, jobs=jobs))
    if lacks and complete:
        return problem("permissions", f"not permitted in namespace {api.namespace}: {lacks}", ROLE)
    if lacks:
        words = f"the cluster does not tell all of them (a webhook decides); not seen: {lacks}"
        return warning("permissions", words, f"nothing, where `up` works; else {ROLE}")
    return ok("permissions", f"all that are needed in namespace {api.namespace}")


def objects(api: Api, options: KubernetesOptions, place: Place, nodes: int, door: str) -> Iterator[Finding]:
    """What the cluster says of the site's objects, which it is not to keep (a dry run)."""
    refused: dict[str, list[str]] = {}
    # a binding is refused where its Role is not there, and a dry run does not make one
    wanted = [
        one for one in manifests(options, place, nodes, {}, reached(door)) if one["kind"] != "RoleBinding"
    ]
    for each in wanted:
        try:
            api.apply(each, dry_run=True)
        except LaunchError as error:
            refused.setdefault(str(error), []).append(each["kind"])
    for words, kinds in refused.items():
        yield problem("objects", f"{', '.join(kinds)}: {words}", mend_of(words))
    if not refused:
        kinds = list(dict.fromkeys(each["kind"] for each in wanted))
        yield ok("objects", f"it would take {', '.join(kinds)}: {nodes} pods as {place.name}-0, ...")


def mend_of(words: str) -> str:
    """What mends a refusal in these words."""
    if "not found" in words and "namespaces" in words:
        return "namespace: one that is there; `kubectl create namespace ...` where you may"
    if "quota" in words:
        return "less of what the reason names, or a larger quota by the namespace's administrators"
    if "updates to statefulset spec" in words:
        return "`flower-hpc down`, then `up`: what the reason names cannot change while it is there"
    return "change what the reason names, in the site's options; `flower-hpc up --dry-run` prints the objects"


def gateway(config: FederationConfig, site: CloudSite, who: str = "pod") -> Finding:
    """Whether the address at which pods (or ``who``) look for the gateway can be one that they reach."""
    mend = f"via: HOST:PORT, or gateway: {{address: ...}}: this machine, as the {who}s know it"
    if config.superlink.launcher != "local" and site.via is None:
        return ok("gateway", "beside the SuperLink, not on this machine")
    host, _ = split(door_of(config, site).removeprefix("tcp:"))
    where = f"{host} port {door_of(config, site).rpartition(':')[2]}".replace(
        "port 0", "at a port that is found"
    )
    try:
        found = sorted({str(each[4][0]) for each in socket.getaddrinfo(host, None)})
    except OSError as error:
        words = (
            f"{host} is not known here: {error.strerror or error}; {who}s may then go to its port anywhere"
        )
        return warning("gateway", words, mend)
    if any(ipaddress.ip_address(each.partition("%")[0]).is_loopback for each in found):
        words = f"{where} is {', '.join(found)}: a {who} that calls it calls itself"
        return warning("gateway", words, mend)
    return ok(
        "gateway", f"{who}s look for it at {where} ({', '.join(found)}); whether they get there, `up` tells"
    )


def door_of(config: FederationConfig, site: CloudSite) -> str:
    """Where the site's pods look for the gateway."""
    near = join(config.gateway.address or socket.gethostname(), config.gateway.port or 0)
    return f"tcp:{site.via or near}"
