"""Before `up`: what stands against it, what its user should know, and what it would start."""

from collections.abc import Mapping
from pathlib import Path
from socket import gethostname

from ..errors import ConfigError
from ..launchers import JobSpec
from ..launchers.ports import join
from . import leftovers
from .config import FederationConfig
from .door import needs_gateway
from .elastic_config import check_budget, check_count
from .jobs import gateway_job, plan_nodes, relay_job, supernode_job
from .kubernetes_site import KubernetesSite
from .launching import Launchers
from .link import Link, socket_path, wants_private, why_refused
from .missing import missing
from .roster import Roster, roster_for
from .state import StateDir
from .superlink import check_port
from .superlink_jobs import superlink_job


def plan(config: FederationConfig, state: StateDir) -> list[dict[str, str]]:
    """``name`` and ``command`` of each process and job, or ``yaml`` of a site's Kubernetes objects.

    Port 0 is one that will be found.

    Raises
    ------
    ConfigError
        More nodes than partitions.
    """
    roster = roster_for(config, Roster.read(state.roster), config.counts)
    private = wants_private(config)
    link = Link(config.superlink.host, config.superlink.port or 0, socket_path(state) if private else None)
    launchers = Launchers(state)
    keeper = launchers.superlink(config).keeper if config.link_elsewhere else None
    if keeper is not None:
        link = Link(link.host, link.port, far="tls:FOUND:0")
        steps = [(keeper.make_spec(), keeper.launcher)]
    else:
        steps = [(superlink_job(config, state, link.port, link.path), launchers.here)]
    port = config.gateway.port or 0
    if needs_gateway(config, link):
        steps.append((gateway_job(config, state, port, link.endpoint), launchers.here))
    for name, site in config.sites.items():
        if getattr(site, "relay", False):
            listen, to = join(config.gateway.host, 0), join(config.gateway.address or gethostname(), port)
            steps.append((relay_job(name, state, listen, to), launchers.here))
    plans = plan_nodes(config, roster, config.counts, state, link, f"tcp:127.0.0.1:{port}")
    pods: dict[str, list[JobSpec]] = {}
    for each in plans.values():
        job = supernode_job(each, state)
        if isinstance(config.sites[each.site], KubernetesSite):
            pods.setdefault(each.site, []).append(job)
        else:
            steps.append((job, launchers.of(config, each.site)))
    planned = [{"name": job.name, "command": launcher.render(job)} for job, launcher in steps]
    for name, jobs in pods.items():
        launcher, site = launchers.pods(config, name), config.sites[name]
        door = getattr(site, "via", None) or join(config.gateway.address or gethostname(), port)
        planned.append({"name": f"sites.{name}", "yaml": launcher.render_all(jobs, door)})
    return planned


def check(config: FederationConfig, *, is_up: bool) -> None:
    """Refuse what cannot work on this machine; ``is_up`` where the federation runs already.

    Raises
    ------
    ConfigError
        In one line.
    """
    if not is_up and (reason := why_refused(config)):
        raise ConfigError(reason)
    for name, site in config.sites.items():
        if not site.remote and site.data_dir is not None and not Path(site.data_dir).is_dir():
            raise ConfigError(f"sites.{name}.data_dir: got {site.data_dir!r}, must be a folder that exists")
    if not is_up:
        check_port(config)


def check_scale(config: FederationConfig, site: str, counts: Mapping[str, int]) -> None:
    """Refuse numbers of nodes that the site's autoscale or the budget exclude: ConfigError in one line."""
    try:
        check_count(site, config.sites[site], counts[site])
        check_budget(config.sites, counts, config.max_usd_per_hour)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def warnings(config: FederationConfig) -> list[str]:
    """What its user should know before it is brought up."""
    found = []
    if not config.tls:
        found.append(
            "security: insecure: no TLS, no node keys: who reaches the SuperLink can join and submit runs"
        )
    if leftovers.shared_host() and not wants_private(config):
        found.append(
            "security.shared_host: accept: other people use this host and its loopback is open to them: "
            "who finds the SuperLink's port can have code run as you"
        )
    return [*found, *missing(config.sites)]
