"""What is handed over to those who start a site's nodes elsewhere: a bundle, as files or as a Secret."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from ..errors import ConfigError, FederationError
from ..launchers import bundle
from ..launchers.handed import start_command
from ..launchers.k8s.manifests import bundle_secret
from ..launchers.k8s.place import Manifest, Place, object_name
from .cluster import ClusterFederation
from .desired import Desired, Saved
from .federation import Federation
from .handed_site import HandedSite
from .identity import write_private
from .jobs import plan_nodes, site_folder, supernode_job
from .link import Link
from .roster import Roster, names_of
from .state import StateDir

NOWHERE = Link("127.0.0.1", 0)
"""Nodes elsewhere look into their door file instead."""


@dataclass(frozen=True)
class Handover:
    """What the nodes of one site need.

    Parameters
    ----------
    federation, site : str
        Whose they are.
    nodes : tuple of str
        Their names.
    files : mapping of str to bytes
        See :mod:`flower_hpc.launchers.bundle`; private keys are among them.
    grace_s : int
        Seconds that a node has to hand work in.
    """

    federation: str
    site: str
    nodes: tuple[str, ...]
    files: Mapping[str, bytes]
    grace_s: int

    def secret(self, name: str | None = None, namespace: str | None = None) -> Manifest:
        """The Secret that the Helm chart knows as ``site.bundleSecret``; default name FEDERATION-SITE.

        Raises
        ------
        ConfigError
            A name that an object, or a namespace, cannot have.
        """
        place = Place(self.federation, self.site, name or object_name(f"{self.federation}-{self.site}"))
        return bundle_secret(place, self.files, namespace)

    def write(self, folder: Path) -> None:
        """Put the files into an empty or new folder, which nobody else may enter.

        Raises
        ------
        ConfigError
            The folder holds something, or is none.
        FederationError
            It cannot be written.
        """
        try:
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                got = f"got {str(folder)!r}"
                raise ConfigError(f"out must be an empty folder, or one that is not there yet, {got}")
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
            for name, content in self.files.items():
                write_private(folder / name, content, 0o600)
        except OSError as error:
            raise FederationError(f"{folder} cannot be written: {error.strerror or error}") from error

    @property
    def commands(self) -> dict[str, str]:
        """By node: what starts it where the folder is the working directory."""
        return {name: start_command(name, ".", self.grace_s) for name in self.nodes}


def hand_over(federation: Federation, site: str) -> Handover:
    """What a site's nodes need.

    Raises
    ------
    ConfigError
        No such site, one whose nodes are started from here, or a federation that was not up with it yet.
    FederationError
        The state folder is damaged.
    """
    if isinstance(federation, ClusterFederation):
        federation.ask_inside("bundle", site)
    handed = [name for name, one in federation.config.sites.items() if isinstance(one, HandedSite)]
    if site not in handed:
        words = ", ".join(handed) or "none, as no site's launcher is handed"
        raise ConfigError(f"site must be one of: {words}; got {site!r}")
    return of_state(StateDir(federation.state_dir), site)


def of_state(state: StateDir, site: str) -> Handover:
    """The same, as the federation was brought up or scaled last."""
    not_yet = ConfigError(
        f"sites.{site}: federation {state.path.name} must have been up with all of its nodes once, "
        "which makes their keys: `flower-hpc up`"
    )
    saved, roster = Saved.read(state), Roster.read(state.roster)
    one = saved.config.sites.get(site) if saved is not None else None
    if saved is None or roster is None or not isinstance(one, HandedSite):
        raise not_yet
    count = {site: Desired.read(state).nodes.get(site, 0)}
    names, folder = names_of(count), site_folder(saved.config, site, state)
    needed = [folder / bundle.CA, folder / bundle.DOOR, *(folder / "keys" / name for name in names)]
    if any(name not in roster.members for name in names) or not all(map(Path.is_file, needed)):
        raise not_yet
    plans = plan_nodes(saved.config, roster, count, state, NOWHERE, NOWHERE.endpoint).values()
    files = bundle.pack(folder, [supernode_job(plan, state) for plan in plans])
    return Handover(saved.config.name, site, tuple(names), files, one.grace_s)


def as_yaml(manifest: Manifest) -> str:
    """For kubectl; applied by the server, no annotation holds a second copy of the keys."""
    return "# private keys: kubectl apply --server-side -f -\n" + yaml.safe_dump(manifest, sort_keys=False)
