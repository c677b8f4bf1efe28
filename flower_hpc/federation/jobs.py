"""What a federation's processes are: pure translations from its config to job specs."""

import hashlib
import json
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..launchers import JobSpec, SlurmOptions
from ..launchers.aws.options import Ec2Options
from ..launchers.bundle import HEALTH, HOME, ROOT, key_file
from ..launchers.filling import DOOR
from ..launchers.k8s import KubernetesOptions
from ..launchers.k8s.job import settings_of
from ..launchers.k8s.place import Place, object_name
from ..launchers.ports import join
from ..launchers.psij_job import PsijOptions
from ..protocol import BELL, NODE_NAME, NODE_STATE_ENV, NUM_PARTITIONS, OFFLOAD_ENV, PARTITION_ID
from .config import FederationConfig
from .ec2_site import Ec2Site
from .environment import answering, environment, remote_environment, threads, warming
from .fields import DATA_DIR, Scalar
from .handed_site import HandedSite
from .kubernetes_site import KubernetesSite
from .link import ENCLOSED, Link
from .roster import Roster, names_of
from .site import CloudSite, Site
from .sites import BATCH, SlurmSite
from .state import StateDir


@dataclass(frozen=True, kw_only=True)
class NodePlan:
    """All that decides how a SuperNode is started; one that changes is restarted."""

    name: str
    site: str
    partition: int
    link: str
    """The SuperLink's endpoint for it, such as ``tcp:127.0.0.1:8000``; empty where a door file says it."""
    tls: bool
    config: Mapping[str, Scalar]
    env: Mapping[str, str] = field(default_factory=dict)
    network: str = "host"
    folder: Path | None = None
    """The site's folder that its hosts share; None where there is none."""
    here: bool = True
    """Whether it is a process of this machine."""
    batch: SlurmOptions | PsijOptions | KubernetesOptions | Ec2Options | None = None
    bundled: bool = False
    """Whether it shares no disk with this machine; see :mod:`flower_hpc.launchers.bundle`."""
    health: bool = False
    """Whether its platform may ask Flower's health server how it is."""

    @property
    def fingerprint(self) -> str:
        """The same for the same plan."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]


def plan_nodes(
    config: FederationConfig,
    roster: Roster,
    counts: Mapping[str, int],
    state: StateDir,
    link: Link,
    gateway: str,
) -> dict[str, NodePlan]:
    """The nodes that shall run, by name.

    ``link`` is where the SuperLink is, ``gateway`` the gateway's endpoint on this machine: a node on the
    host's network beside a private SuperLink uses it too, since what forwards for it is open to the host.
    """
    plans = {}
    # not of those that are there now: one more or less should not restart the others
    sites = [(config.sites[name], most) for name, most in config.most.items()]
    here = sum(most * (site.mpi.workers if site.mpi else 1) for site, most in sites if not site.remote)
    for site_name, site in config.sites.items():
        folder = site_folder(config, site_name, state) if isinstance(site, BATCH) else None
        bundled = isinstance(site, CloudSite)
        batch = None
        if isinstance(site, BATCH) and folder is not None:
            batch = site.batch(folder if bundled else folder / "jobs")
        network = network_of(site, link)
        near = gateway if link.far or (network == "host" and link.private) else link.endpoint
        for name in names_of({site_name: counts.get(site_name, 0)}):
            ours: dict[str, Scalar] = {
                NODE_NAME: name,
                PARTITION_ID: roster.members[name].partition,
                NUM_PARTITIONS: roster.partitions,
            }
            data: dict[str, Scalar] = {DATA_DIR: site.data_dir} if site.data_dir else {}
            extra = dict(site.node_config) | dict(site.per_node.get(name, {}))
            plans[name] = NodePlan(
                name=name,
                site=site_name,
                partition=roster.members[name].partition,
                link="" if site.remote else near,
                tls=config.tls,
                config=ours | data | extra,
                env=({} if site.remote else threads(here))
                | warming(site)
                | answering(site)
                | offloading(site, config, site_name, state)
                | site.env,
                network=network,
                folder=folder,
                here=not site.remote,
                batch=site.batch() if isinstance(site, Ec2Site) else batch,
                bundled=bundled,
                health=isinstance(site, KubernetesSite | HandedSite),
            )
    return plans


def network_of(site: Site, link: Link) -> str:
    """Private by default where the SuperLink is, and on hosts that others use too."""
    if site.network is not None:
        return site.network
    if site.mpi is not None:
        return "host"  # its ranks find each other there, and its job the batch system
    if isinstance(site, KubernetesSite):
        return "host"  # a pod has a network of its own
    if isinstance(site, SlurmSite) and not site.remote:
        return "host"  # its apps call sbatch
    return "private" if site.remote or link.private else "host"


def site_folder(config: FederationConfig, site: str, state: StateDir) -> Path:
    """Where a site's hosts find keys, and leave logs and the nodes' state."""
    shared = getattr(config.sites[site], "shared", None)
    return Path(shared) / config.name / site if shared else state.path / "sites" / site


def offloading(site: Site, config: FederationConfig, name: str, state: StateDir) -> dict[str, str]:
    """What tells a node's apps to hand training messages over to a batch system."""
    if isinstance(site, KubernetesSite) and site.mode == "on-demand":
        place = place_of(config, name, state)
        settings = settings_of(site.batch(site_folder(config, name, state)), place)
        return {OFFLOAD_ENV: json.dumps(settings | {"env": sorted(site.env)})}
    if not isinstance(site, SlurmSite) or site.mode != "on-demand":
        return {}
    options = site.batch(site_folder(config, name, state) / "jobs")
    settings = {key: value for key, value in asdict(options).items() if value not in (None, (), {})}
    settings |= {"executor": "flower_hpc.launchers.executor:from_settings", "poll_s": site.poll_s}
    return {OFFLOAD_ENV: json.dumps(settings | {"name": job_name(config, name, state)}, default=str)}


def job_name(config: FederationConfig, site: str, state: StateDir) -> str:
    """Of a site's jobs; another state folder's federation of the same name has others."""
    digest = hashlib.sha256(str(state.path).encode()).hexdigest()[:6]
    return f"{config.name}-{site}-{digest}"


def place_of(config: FederationConfig, site: str, state: StateDir) -> Place:
    """Whose a Kubernetes site's objects are, and what they are called."""
    return Place(config.name, site, object_name(job_name(config, site, state)))


def supernode_job(plan: NodePlan, state: StateDir) -> JobSpec:
    """A SuperNode, whose own Runtime API listens on a free port of the loopback."""
    base, folder, log = places(plan, state)
    key = base / (key_file(plan.name) if plan.bundled else f"keys/{plan.name}")
    direct = plan.network == "host" and plan.link.startswith("tcp:")
    runtime = "127.0.0.1:{port:runtime}"
    link = plan.link.removeprefix("tcp:") if direct else "127.0.0.1:{port:link}"
    command = ["flower-supernode", "--superlink", link]
    if plan.tls:
        command += ["--root-certificates", str(base / "ca.pem")]
        command += ["--auth-supernode-private-key", str(key)]
    else:
        command += ["--insecure"]
    command += ["--host", "127.0.0.1", "--port", "{port:runtime}", "--node-config", node_config(plan.config)]
    if plan.health:
        command += ["--health-server-address", f"{{env:{HEALTH}}}"]
    command = ["python", "-m", "flower_hpc.launchers.with_superexec", runtime, "--", *command]
    if not direct:
        # beyond this machine it goes without where it must: what forwards leads to the gateway alone
        private = [] if plan.here else ["--or-host"]
        network = private if plan.network == "private" else ["--host"]
        command = [*ENCLOSED, *network, "--out", f"{link}={plan.link or DOOR}", "--", *command]
    ours = environment(state, folder) if plan.here else remote_environment()
    return JobSpec(
        name=plan.name,
        command=tuple(command),
        cwd=folder,
        log=log,
        # where the node's work looks for the file `stop`
        env=ours | {NODE_STATE_ENV: str(folder)} | dict(plan.env),
        door=None if plan.here else base / "door",
        fingerprint=plan.fingerprint,
    )


def places(plan: NodePlan, state: StateDir) -> tuple[Path, Path, Path]:
    """As the node's host sees them: the folder of its files, its own folder, and its log."""
    if plan.here:
        return state.path, (plan.folder or state.path) / "nodes" / plan.name, state.log(plan.name)
    base, home = (ROOT, HOME) if plan.bundled else (plan.folder or state.path,) * 2
    return base, home / "nodes" / plan.name, home / "logs" / f"{plan.name}.log"


def gateway_job(config: FederationConfig, state: StateDir, port: int, link: str) -> JobSpec:
    """The gateway: what nodes beyond this machine may ask of the SuperLink at ``link``, and nothing else."""
    listen = join(config.gateway.host, port)
    command = ["flower-hpc", "gateway", "--listen", listen, "--superlink", link, "--ca", str(state.ca)]
    command += ["--certificate", str(state.server_cert), "--key", str(state.server_key)]
    command += ["--heard", str(state.heard), "--withdrawn", str(state.withdrawn)]
    command += ["--bell", str(state.path / BELL)]
    return _service("gateway", command, state)


def relay_job(site: str, state: StateDir, listen: str, to: str) -> JobSpec:
    """Forwards a site's connections, unread."""
    return _service(f"relay-{site}", ["flower-hpc", "relay", "--listen", listen, "--to", to], state)


def _service(name: str, command: list[str], state: StateDir) -> JobSpec:
    return JobSpec(
        name=name,
        command=tuple(command),
        cwd=state.path,
        log=state.log(name),
        env=environment(state, state.flwr),
        stop_signal=signal.SIGTERM,
        fingerprint=" ".join(command),
    )


def registration_job(names: list[str], connection: str, state: StateDir, link: Link) -> JobSpec:
    """Registers nodes with the SuperLink, all in one process: Flower takes seconds to import."""
    module = f"{__package__}.registration"
    command = link.inside(["python", "-m", module, str(state.path), connection, *names])
    return JobSpec(
        name="registration",
        command=tuple(command),
        cwd=state.path,
        log=state.log("registration"),
        env=environment(state, state.flwr),
        stop_signal=signal.SIGTERM,
    )


def node_config(values: Mapping[str, Scalar]) -> str:
    """Flower's ``--node-config``: ``key=value`` pairs, values as in TOML."""
    return " ".join(f"{key}={_toml(value)}" for key, value in values.items())


def connection_toml(config: FederationConfig, state: StateDir, address: str) -> str:
    """The config.toml with which ``flwr`` reaches the SuperLink, under the federation's name."""
    lines = ["[superlink]", f"default = {json.dumps(config.name)}", "", f"[superlink.{config.name}]"]
    lines.append(f"address = {json.dumps(address)}")
    if config.tls:
        lines.append(f"root-certificates = {json.dumps(str(state.ca), ensure_ascii=False)}")
    else:
        lines.append("insecure = true")
    return "\n".join(lines) + "\n"


def _toml(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"'{value}'" if "'" not in value else json.dumps(value, ensure_ascii=False)
    return repr(value)
