"""What usually goes wrong with a federation's sites, looked for before it does; leaves nothing behind."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from ...errors import ConfigError, LaunchError
from ...launchers import SlurmOptions
from ...launchers.probe import Probe, versions
from ...launchers.slurm_queue import Run, run
from ..config import FederationConfig
from ..ec2_site import Ec2Site
from ..federation import Federation
from ..handed_site import HandedSite
from ..jobs import job_name, site_folder
from ..kubernetes_site import KubernetesSite
from ..sites import SlurmSite
from ..state import StateDir
from .ec2 import examine_ec2
from .finding import Finding, Health, problem, warning
from .handed import examine_handed
from .kubernetes import examine_kubernetes
from .machine import data_folder, examine_machine
from .probe import send
from .report import judge
from .slurm import Cluster, commands, controller, examine_cluster, mend_of, shared_folder, submitit
from .trial_gateway import way_in

HERE = "this machine"
TIMEOUT_S = 120.0
Tell = Callable[[str], None]


def examine(
    federation: Federation,
    site: str | None = None,
    *,
    timeout_s: float = TIMEOUT_S,
    tell: Tell = lambda words: None,
) -> Iterator[Finding]:
    """Check a federation's sites and this machine, one finding at a time.

    Parameters
    ----------
    federation : Federation
        Up or not.
    site : str, optional
        Only this one, and this machine where its nodes run here; default all.
    timeout_s : float
        Seconds that the probe job of each site may wait and run; 0 for none; default 120.
    tell : callable
        Called with what is being done; default nobody.

    Raises
    ------
    ConfigError
        No such site.
    """
    config = federation.config
    if site is not None and site not in config.sites:
        raise ConfigError(f"site must be one of: {', '.join(config.sites)}; got {site!r}")
    return Doctor(config, StateDir(federation.state_dir), federation.is_up(), timeout_s, tell).visit(site)


class Doctor:
    """Goes from site to site; see :func:`examine`."""

    def __init__(
        self,
        config: FederationConfig,
        state: StateDir,
        is_up: bool,
        timeout_s: float,
        tell: Tell,
        run: Run = run,
    ) -> None:
        self.config, self.state, self.is_up = config, state, is_up
        self.timeout_s, self.tell, self.run = timeout_s, tell, run

    def visit(self, only: str | None) -> Iterator[Finding]:
        """All that was asked for."""
        sites = {name: site for name, site in self.config.sites.items() if only in (None, name)}
        if only is None or not isinstance(sites[only], SlurmSite | Ec2Site | KubernetesSite | HandedSite):
            self.tell(HERE)
            for finding in examine_machine(self.config, self.state, is_up=self.is_up):
                yield replace(finding, site=HERE)
        for name, site in sites.items():
            self.tell(f"site {name}")
            if isinstance(site, Ec2Site):
                found = examine_ec2(name, site, self.config.name, is_up=self.is_up)
            elif isinstance(site, KubernetesSite):
                found = examine_kubernetes(name, site, self.config, self.state, is_up=self.is_up)
            elif isinstance(site, HandedSite):
                found = examine_handed(name, site, self.config, self.state)
            else:
                found = self.slurm(name, site) if isinstance(site, SlurmSite) else iter([data_folder(site)])
            for finding in found:
                yield replace(finding, site=name)

    def slurm(self, name: str, site: SlurmSite) -> Iterator[Finding]:
        """A site of a Slurm cluster: what can be asked here, then one job."""
        folder = site_folder(self.config, name, self.state)
        yield (here := commands())
        yield (library := submitit())
        yield (disk := shared_folder(folder))
        if Health.PROBLEM in (here.state, library.state):
            return
        yield (answer := controller(self.run))
        if answer.state is Health.PROBLEM:
            return
        cluster = self.cluster(site.batch(folder))
        if isinstance(cluster, Finding):
            yield cluster
            return
        asked = list(examine_cluster(cluster, job_name(self.config, name, self.state)))
        yield from asked
        # a probe is short: a time limit that is too long does not stand in its way
        wrong = [each for each in (disk, *asked) if each.state is Health.PROBLEM and each.check != "time"]
        if self.timeout_s > 0 and not wrong:
            yield from self.probe(name, site, cluster)

    def cluster(self, options: SlurmOptions) -> Cluster | Finding:
        """What the cluster tells of itself, or that it does not."""
        try:
            return Cluster(options, self.run)
        except LaunchError as error:
            return problem(
                "Slurm answers", str(error), "`scontrol show partition` and `sinfo` should work here"
            )

    def probe(self, name: str, site: SlurmSite, cluster: Cluster) -> Iterator[Finding]:
        """Send a job of the site's and judge what it reports."""
        jobs = job_name(self.config, name, self.state)
        with ExitStack() as stack:
            way, stands_in = None, False
            try:
                if site.remote:
                    make = way_in(self.config, name, self.state, is_up=self.is_up)
                    way, stands_in = stack.enter_context(make)
            except OSError as error:
                mend = "gateway: {host: 0.0.0.0, port: null}, or bring the federation up first"
                yield warning("gateway", f"not tried: {error.strerror or error}", mend)
            probe = Probe(report=Path(), way=way, data_dir=site.data_dir)
            try:
                outcome = send(
                    cluster.options, jobs, probe, timeout_s=self.timeout_s, run=self.run, tell=self.tell
                )
            except (LaunchError, OSError) as error:
                yield problem("probe job", str(error), mend_of(str(error), cluster.words()))
                return
            yield from judge(outcome, site, way, versions(), stands_in=stands_in)
