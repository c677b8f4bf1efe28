"""Give a site of a federation that is up another number of nodes."""

from ..errors import ConfigError, FederationError
from .desired import Desired, Saved
from .planning import check_scale
from .roster import Roster, roster_for
from .state import CONTROLLER_LOCK, StateDir


def scale(state: StateDir, site: str, nodes: int) -> Desired:
    """What the controller is told now.

    Raises
    ------
    ConfigError
        No such site, a negative number, more nodes than partitions, or than autoscale or the budget allow.
    FederationError
        The federation is not up.
    """
    saved = Saved.read(state) if state.held(CONTROLLER_LOCK) else None
    if saved is None:
        raise FederationError(f"federation {state.path.name} is not up")
    if site not in saved.config.sites:
        raise ConfigError(f"site must be one of: {', '.join(saved.config.sites)}; got {site!r}")
    if nodes < 0:
        raise ConfigError(f"nodes must be an integer >= 0, got {nodes}")
    with state.cli_lock():
        old = Desired.read(state)
        counts = dict(old.nodes) | {site: nodes}
        check_scale(saved.config, site, counts)
        roster_for(saved.config, Roster.read(state.roster), counts)
        wish = Desired(generation=old.generation + 1, nodes=counts, stop=old.stop)
        wish.write(state)
    return wish
