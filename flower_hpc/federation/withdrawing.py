"""Nodes that others start and nobody wants any more: none can end them, so the gateway refuses them."""

import logging
from collections.abc import Collection, Mapping

from ..errors import FederationError
from .config import FederationConfig
from .handed_site import HandedSite
from .identity import fingerprint_of
from .roster import site_of
from .state import StateDir, read_json, write_json

log = logging.getLogger(__name__)


class Withdrawing:
    """Keeps the gateway's list: names of nodes, and the fingerprints of their keys.

    What was withdrawn stays so until it is wanted again, also where its site is no longer in the file.

    Parameters
    ----------
    state : StateDir
        The federation's.
    """

    def __init__(self, state: StateDir) -> None:
        self._state = state
        try:
            self._over: dict[str, str] = dict(read_json(state.withdrawn) or {})
        except (FederationError, ValueError, TypeError) as error:
            log.error("which nodes were withdrawn is not known any more: %s", error)
            self._over = {}
        self._sites = {site_of(name) for name in self._over}

    def tick(self, config: FederationConfig, known: Collection[str], wanted: Mapping[str, object]) -> None:
        """Bring the list up to date; ``known`` are all nodes that ever had a key."""
        self._sites |= {name for name, site in config.sites.items() if isinstance(site, HandedSite)}
        self._sites -= {name for name, site in config.sites.items() if not isinstance(site, HandedSite)}
        over = {name for name in known if site_of(name) in self._sites}
        found = {
            name: self._over.get(name) or fingerprint_of(self._state.keys, name)
            for name in sorted(over - wanted.keys())
        }
        if found != self._over:
            write_json(self._state.withdrawn, found)
            self._over = found
