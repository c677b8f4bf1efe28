"""From sites to launchers: one a site, for all of its nodes."""

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from ..errors import LaunchError
from ..launchers import KubernetesLauncher, Launcher, LocalLauncher, SlurmLauncher
from ..launchers.ec2 import Ec2Launcher
from ..launchers.handed import HandedLauncher
from ..launchers.piloted import Piloted
from ..launchers.slurm_queue import run
from .config import FederationConfig
from .ec2_site import Ec2Site
from .handed_site import HandedSite
from .hearing import Hearing
from .jobs import job_name, place_of, site_folder
from .kubernetes_site import KubernetesSite
from .link_config import SlurmSuperLink
from .site import CloudSite
from .sites import PsijSite, SlurmSite
from .state import PROCESSES, StateDir
from .superlink import SuperLink
from .superlink_far import FarSuperLink

log = logging.getLogger(__name__)

L = TypeVar("L", bound=Launcher)
Cloud = KubernetesLauncher | Ec2Launcher | HandedLauncher
"""Of sites that share no disk with this machine."""


class Launchers:
    """The launcher of each site, made when it is first asked for; ``here`` is that of this machine."""

    def __init__(self, state: StateDir) -> None:
        self.here: Launcher = LocalLauncher(state.jobs / PROCESSES)
        self._state = state
        self._made: dict[tuple[str, type[Launcher]], Launcher] = {}

    def of(self, config: FederationConfig, name: str) -> Launcher:
        """The launcher of a site, with what the site asks for now."""
        site = config.sites[name]
        if isinstance(site, CloudSite):
            return self.cloud(config, name)
        if isinstance(site, PsijSite):
            return self._psij(config, name, site)
        if isinstance(site, SlurmSite) and site.remote:
            return self._slurm(config, name, site)
        return self.here

    def cloud(self, config: FederationConfig, name: str) -> Cloud:
        """The launcher of a site that shares no disk with this machine."""
        site = config.sites[name]
        if isinstance(site, Ec2Site):
            return self._ec2(config, name, site)
        return self._handed(name) if isinstance(site, HandedSite) else self.pods(config, name)

    def pods(self, config: FederationConfig, name: str) -> KubernetesLauncher:
        """The launcher of a Kubernetes site."""
        site = config.sites[name]
        assert isinstance(site, KubernetesSite)
        options = site.batch(site_folder(config, name, self._state))
        place = place_of(config, name, self._state)
        known = self._known(
            name, KubernetesLauncher, lambda: KubernetesLauncher(options, place, memory=self._memory(name))
        )
        known.options = options
        return known

    def _ec2(self, config: FederationConfig, name: str, site: Ec2Site) -> Ec2Launcher:
        known = self._known(
            name,
            Ec2Launcher,
            lambda: Ec2Launcher(
                site.batch(),
                folder=site_folder(config, name, self._state),
                federation=config.name,
                site=name,
                job_name=job_name(config, name, self._state),
                memory=self._memory(name),
            ),
        )
        known.options, known.poller.poll_s = site.batch(), site.poll_s
        return known

    def _handed(self, name: str) -> HandedLauncher:
        return self._known(name, HandedLauncher, lambda: HandedLauncher(name, Hearing(self._state).last))

    def _slurm(self, config: FederationConfig, name: str, site: SlurmSite) -> SlurmLauncher:
        options = site.batch(site_folder(config, name, self._state) / "jobs")
        called = job_name(config, name, self._state)
        known = self._known(
            name, SlurmLauncher, lambda: SlurmLauncher(options, job_name=called, memory=self._memory(name))
        )
        known.options, known.poller.poll_s = options, site.poll_s
        return known

    def _psij(self, config: FederationConfig, name: str, site: PsijSite) -> Launcher:
        from ..launchers.psij import PsijLauncher

        options = site.batch(site_folder(config, name, self._state) / "jobs")
        return self._known(name, Piloted, lambda: Piloted(PsijLauncher(options), options.folder))

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
        self._made["superlink", SlurmLauncher] = launcher
        return FarSuperLink(config, self._state, launcher, folder)

    @property
    def patient(self) -> bool:
        """Whether some of their jobs take a while to end."""
        return any(isinstance(one, SlurmLauncher) for one in self._made.values())

    @property
    def trouble(self) -> dict[str, str]:
        """By site: why nothing is known of its jobs at present."""
        return {
            name: one.trouble
            for (name, _), one in self._made.items()
            if isinstance(one, SlurmLauncher | KubernetesLauncher | Ec2Launcher) and one.trouble
        }

    def take_down(self) -> dict[str, str]:
        """Delete what sites have beside jobs; by site, what is left. Waits for their platforms."""
        clouds = [
            (name, one)
            for (name, _), one in self._made.items()
            if isinstance(one, KubernetesLauncher | Ec2Launcher)
        ]
        with ThreadPoolExecutor() as pool:
            left = list(pool.map(lambda pair: pair[1].take_down(), clouds))
        return {name: "; ".join(words) for (name, _), words in zip(clouds, left, strict=True) if words}

    def close(self) -> None:
        """Let go of all; jobs go on."""
        for launcher in (self.here, *self._made.values()):
            launcher.close()

    def _known(self, name: str, kind: type[L], make: Callable[[], L]) -> L:
        # by kind too: what a site had before an edit gave it another launcher is to be taken down as well
        found = self._made.get((name, kind))
        if found is None:
            found = self._made[name, kind] = make()
        assert isinstance(found, kind)
        return found

    def _memory(self, name: str) -> Path:
        return self._state.jobs / f"{name}.json"


def end_offloaded(config: FederationConfig, state: StateDir) -> None:
    """Cancel jobs that nodes of this machine have handed training messages to."""
    for name, site in config.sites.items():
        if isinstance(site, SlurmSite) and not site.remote:
            try:
                run(("scancel", "-Q", "-u", str(os.getuid()), "-n", job_name(config, name, state)))
            except LaunchError as error:  # they notice themselves that nobody waits, after minutes
                log.warning("sites.%s: %s", name, error)
