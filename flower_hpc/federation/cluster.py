"""A federation whose SuperLink is a pod: brought up and taken down from here, asked inside.

Its controller lives in the pod. From here its objects are made and deleted, through the user's kubeconfig.
"""

from pathlib import Path
from typing import NoReturn

import yaml

from ..clock import WALL
from ..errors import ConfigError, FederationError
from ..launchers.k8s.api import Api
from ..launchers.k8s.link import CONTAINER, PORT, link_manifests, place_of
from ..launchers.k8s.place import FEDERATION, MANAGER, Manifest
from .config import FederationConfig
from .desired import Saved
from .federation import Federation
from .handed_site import HandedSite
from .kubernetes_site import KubernetesSite
from .link_config import KubernetesSuperLink
from .planning import warnings
from .site import Site
from .status import State, Status
from .waiting import Progress

LOOK_S, GONE_S = 1.0, 120.0
OURS = ("StatefulSet", "PodDisruptionBudget", "NetworkPolicy", "Secret", "ServiceAccount")
"""What sites consist of, in the order to delete it."""
OF_JOBS = ("Job", "RoleBinding", "Role")
KEPT = "PersistentVolumeClaim"


class ClusterFederation(Federation):
    """One whose SuperLink is a pod."""

    def __init__(self, config: FederationConfig, *, ephemeral: bool = False) -> None:
        super().__init__(config, ephemeral=ephemeral)
        assert isinstance(config.superlink, KubernetesSuperLink)
        self._link = config.superlink
        self._place = place_of(config.name)

    @property
    def num_nodes(self) -> int:
        """How many nodes its file names."""
        return sum(self.config.counts.values())

    @property
    def hint(self) -> str:
        """How it is asked for anything."""
        return f"its SuperLink is up, and brings the nodes up; ask it so: {self._inside('status', self.name)}"

    @property
    def warnings(self) -> list[str]:
        """What its user should know before it is brought up."""
        found = [] if self._link.storage else ["superlink.storage: null: keys and runs are lost with the pod"]
        return found + [words for words in warnings(self.config) if not words.startswith("security.shared")]

    def check(self) -> None:
        """Refuse what cannot work in a cluster: ConfigError in one line."""
        inside(self.config)

    def plan(self) -> list[dict[str, str]]:
        """The objects that :meth:`up` would make; makes nothing."""
        return [{"name": "superlink", "yaml": yaml.safe_dump_all(self._objects(), sort_keys=False)}]

    def up(self, progress: Progress | None = None, timeout_s: float = 120) -> Status:
        """Make the SuperLink's objects and wait until its gateway listens; nodes come by themselves then."""
        api = self._api()
        self._state.create()
        Saved(config=self.config).write(self._state)
        try:
            for each in self._objects():
                api.apply(each)
            until = WALL.now() + timeout_s
            while not _is_ready(api.get("Deployment", self._place.name)):
                if WALL.now() > until:
                    raise FederationError(
                        f"federation {self.name}: the SuperLink's pod is not ready after {timeout_s:g} s: "
                        f"{self._command('describe', 'pod', '-l', self._place.selector)}"
                    )
                WALL.sleep(LOOK_S)
        finally:
            api.close()
        return Status(name=self.name, state=State.STARTING)

    def down(self, timeout_s: float = GONE_S) -> bool:
        """Delete the SuperLink, then all sites in its namespace; its claim, with keys and runs, stays."""
        api = self._api()
        try:
            found = [
                api.delete(each["kind"], each["metadata"]["name"])
                for each in reversed(self._objects())
                if each["kind"] != KEPT
            ]
            # a controller that lives would make its sites anew
            self._wait_for_no_pod(api, self._place.selector, timeout_s)
            mine = f"{FEDERATION}={self.name},app.kubernetes.io/managed-by={MANAGER}"
            for kind in (*OURS, *(OF_JOBS if self._jobs else ())):
                api.delete_all(kind, mine)
            self._wait_for_no_pod(api, mine, timeout_s)
        finally:
            api.close()
        return any(found)

    # -- what the pod knows --------------------------------------------------------------------------

    def is_up(self) -> bool:
        """Not known here."""
        self.ask_inside("run", "/tmp/APP", before=f"{self._command('cp', 'APP', 'POD:/tmp/APP')}; ")

    def status(self) -> Status:
        """Not known here."""
        self.ask_inside("status", self.name)

    def scale(self, site: str, nodes: int, timeout_s: float = 120) -> Status:
        """Not done from here."""
        self.ask_inside("scale", site, str(nodes))

    def log_path(self, node: str) -> Path:
        """Not here."""
        self.ask_inside("logs", node)

    def up_once(self) -> Status:
        """Not needed: the pod stays."""
        raise ConfigError("--once: is for a SuperLink on this machine, and this one is a pod")

    def ask_inside(self, *words: str, before: str = "") -> NoReturn:
        """Refuse, with the command that asks its pod."""
        command = f"{before}{self._inside(*words)}"
        raise ConfigError(f"federation {self.name} lives in a cluster, ask it there: {command}")

    def _inside(self, *words: str) -> str:
        target = f"deploy/{self._place.name}"
        return self._command("exec", target, "-c", CONTAINER, "--", "flower-hpc", *words)

    def _command(self, *words: str) -> str:
        link = self._link
        given = {"--kubeconfig": link.kubeconfig, "--context": link.context, "-n": link.namespace}
        options = [part for key, value in given.items() if value for part in (key, value)]
        return " ".join(["kubectl", *options, *words])

    def _objects(self) -> list[Manifest]:
        text = yaml.safe_dump(inside(self.config), sort_keys=False)
        link = self._link.link(self.config.gateway.port, jobs=self._jobs)
        return link_manifests(link, self._place, text)

    @property
    def _jobs(self) -> bool:
        sites = self.config.sites.values()
        return any(isinstance(site, KubernetesSite) and site.mode == "on-demand" for site in sites)

    def _api(self) -> Api:
        pod = self._link.link(None).pod
        return Api(pod.kubeconfig, pod.context, pod.namespace)

    def _wait_for_no_pod(self, api: Api, selector: str, timeout_s: float) -> None:
        until = WALL.now() + timeout_s
        while left := api.list("Pod", selector)["items"]:
            if WALL.now() > until:
                names = ", ".join(each["metadata"]["name"] for each in left[:5])
                raise FederationError(f"federation {self.name}: pods do not end: {names}; run `down` again")
            WALL.sleep(LOOK_S)


def inside(config: FederationConfig) -> Manifest:
    """The federation.yaml of the controller in the pod, which speaks to its own cluster.

    Raises
    ------
    ConfigError
        A site that cannot be kept from there.
    """
    link = config.superlink
    assert isinstance(link, KubernetesSuperLink)
    if not config.remote:
        raise ConfigError("superlink.launcher: got 'kubernetes', must be local where no site is a cluster's")
    data = config.model_dump(mode="json", exclude_defaults=True)
    del data["superlink"]
    data["gateway"] = data.get("gateway", {}) | {"port": config.gateway.port or PORT}
    for name, site in config.sites.items():
        if not isinstance(site, KubernetesSite | HandedSite) and type(site) is not Site:
            raise ConfigError(
                f"sites.{name}.launcher: got {site.launcher!r}, must be kubernetes, handed or local here"
            )
        if isinstance(site, KubernetesSite):
            for what in ("kubeconfig", "context"):
                if getattr(site, what) != getattr(link, what):
                    raise ConfigError(
                        f"sites.{name}.{what}: got {getattr(site, what)!r}, must be the superlink's "
                        f"({getattr(link, what)!r}): its pod can reach its own cluster alone"
                    )
                data["sites"][name].pop(what, None)
            if (site.namespace or link.namespace) != link.namespace:
                raise ConfigError(f"sites.{name}.namespace: got {site.namespace!r}, must be the superlink's")
    return data


def _is_ready(deployment: Manifest) -> bool:
    status = deployment.get("status", {})
    known = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    return bool(known and status.get("updatedReplicas", 0) >= 1 and status.get("readyReplicas", 0) >= 1)
