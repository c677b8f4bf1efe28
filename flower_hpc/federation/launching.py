"""From sites to launchers: one a site, for all of its nodes."""

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..errors import LaunchError
from ..launchers import KubernetesLauncher, Launcher, LocalLauncher, SlurmLauncher
from ..launchers.ec2 import Ec2Launcher
from ..launchers.handed import HandedLauncher
from ..launchers.piloted import Piloted
from ..launchers.psij_job import PsijOptions
from ..launchers.slurm_queue import run
from ..network.heard import Listened
from .config import FederationConfig
from .ec2_site import Ec2Site
from .handed_site import HandedSite
from .identity import fingerprint_of
from .jobs import job_name, place_of, site_folder
from .kubernetes_site import KubernetesSite
from .link_config import SlurmSuperLink
from .sites import PsijSite, SlurmSite
from .state import PROCESSES, StateDir
from .superlink import SuperLink
from .superlink_far import FarSuperLink

log = logging.getLogger(__name__)


class Launchers:
    """The launcher of each site, made when it is first asked for; ``here`` is that of this machine."""

    def __init__(self, state: StateDir) -> None:
        self.here: Launcher = LocalLauncher(state.jobs / PROCESSES)
        self._state = state
        self._batch: dict[str, SlurmLauncher] = {}
        self._others: dict[str, Launcher] = {}
        self._pods: dict[str, KubernetesLauncher] = {}
        self._ec2s: dict[str, Ec2Launcher] = {}

    def of(self, config: FederationConfig, name: str) -> Launcher:
        """The launcher of a site, with what the site asks for now."""
        site = config.sites[name]
        if isinstance(site, KubernetesSite):
            return self.pods(config, name)
        if isinstance(site, Ec2Site):
            return self._ec2(config, name, site)
        if isinstance(site, HandedSite):
            return self._handed(name)
        if isinstance(site, PsijSite):
            return self._psij(site.batch(site_folder(config, name, self._state) / "jobs"), name)
        if not isinstance(site, SlurmSite) or not site.remote:
            return self.here
        options = site.batch(site_folder(config, name, self._state) / "jobs")
        known = self._batch.get(name)
        if known is None:
            memory = self._state.jobs / f"{name}.json"
            known = SlurmLauncher(options, job_name=job_name(config, name, self._state), memory=memory)
            self._batch[name] = known
        known.options, known.poller.poll_s = options, site.poll_s
        return known

    def pods(self, config: FederationConfig, name: str) -> KubernetesLauncher:
        """The launcher of a Kubernetes site."""
        site = config.sites[name]
        assert isinstance(site, KubernetesSite)
        options = site.batch(site_folder(config, name, self._state))
        if name not in self._pods:
            place = place_of(config, name, self._state)
            memory = self._state.jobs / f"{name}.json"
            self._pods[name] = KubernetesLauncher(options, place, memory=memory)
        self._pods[name].options = options
        return self._pods[name]

    def _ec2(self, config: FederationConfig, name: str, site: Ec2Site) -> Launcher:
        known = self._ec2s.get(name)
        if known is None:
            known = self._ec2s[name] = Ec2Launcher(
                site.batch(),
                folder=site_folder(config, name, self._state),
                federation=config.name,
                site=name,
                job_name=job_name(config, name, self._state),
                memory=self._state.jobs / f"{name}.json",
            )
        known.options, known.poller.poll_s = site.batch(), site.poll_s
        return known

    def _handed(self, name: str) -> Launcher:
        heard, prints = Listened(self._state.heard), dict[str, str]()

        def last(node: str) -> float | None:
            prints[node] = prints.get(node) or fingerprint_of(self._state.keys, node)
            return heard.last(prints[node])

        return self._others.setdefault(name, HandedLauncher(name, last))

    def _psij(self, options: PsijOptions, name: str) -> Launcher:
        from ..launchers.psij import PsijLauncher

        if name not in self._others:
            self._others[name] = Piloted(PsijLauncher(options), options.folder)
        return self._others[name]

    def superlink(self, config: FederationConfig) -> SuperLink | FarSuperLink:
        """What keeps the SuperLink."""
        site = config.superlink
        if not isinstance(site, SlurmSuperLink):
            return SuperLink(config, self._state, self.here)
        folder = Path(site.shared) / config.name / "superlink" if site.shared else self._state.path / "link"
        name = job_name(config, "superlink", self._state)
        memory = self._state.jobs / "superlink-job.json"
        launcher = SlurmLauncher(
            site.batch(folder / "jobs"), job_name=name, memory=memory, poll_s=site.poll_s
        )
        self._batch["superlink"] = launcher
        return FarSuperLink(config, self._state, launcher, folder)

    @property
    def patient(self) -> bool:
        """Whether some of their jobs take a while to end."""
        return bool(self._batch)

    @property
    def trouble(self) -> dict[str, str]:
        """By site: why nothing is known of its jobs at present."""
        asked = self._batch | self._pods | self._ec2s
        return {name: launcher.trouble for name, launcher in asked.items() if launcher.trouble}

    def take_down(self) -> dict[str, str]:
        """Delete what sites have beside jobs; by site, what is left. Waits for their platforms."""
        clouds = self._pods | self._ec2s
        with ThreadPoolExecutor() as pool:
            left = dict(zip(clouds, pool.map(_take_down, clouds.values()), strict=True))
        return {name: "; ".join(words) for name, words in left.items() if words}

    def close(self) -> None:
        """Let go of all; jobs go on."""
        for launcher in (
            self.here,
            *self._batch.values(),
            *self._pods.values(),
            *self._others.values(),
            *self._ec2s.values(),
        ):
            launcher.close()


def _take_down(launcher: KubernetesLauncher | Ec2Launcher) -> list[str]:
    return launcher.take_down()


def end_offloaded(config: FederationConfig, state: StateDir) -> None:
    """Cancel jobs that nodes of this machine have handed training messages to."""
    for name, site in config.sites.items():
        if isinstance(site, SlurmSite) and not site.remote:
            try:
                run(("scancel", "-Q", "-u", str(os.getuid()), "-n", job_name(config, name, state)))
            except LaunchError as error:  # they notice themselves that nobody waits, after minutes
                log.warning("sites.%s: %s", name, error)
