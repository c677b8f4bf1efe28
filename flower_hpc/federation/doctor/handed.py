"""What the doctor can say of a site whose nodes others start: how they would get here."""

from collections.abc import Iterator

from ...errors import ConfigError
from ..config import FederationConfig
from ..handed_site import HandedSite
from ..handing import of_state
from ..state import StateDir
from .finding import Finding, ok
from .kubernetes import gateway


def examine_handed(
    name: str, site: HandedSite, config: FederationConfig, state: StateDir
) -> Iterator[Finding]:
    """All that can be known here, one finding at a time."""
    yield gateway(config, site, "node")
    try:
        nodes = len(of_state(state, name).nodes)
        found = f"`flower-hpc bundle {name}` hands them over"
    except ConfigError:
        nodes, found = site.nodes, "made at the first `up`"  # as it should be before that
    yield ok("keys", f"of {nodes} nodes, which others start: {found}")
