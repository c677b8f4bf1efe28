"""When the gateway heard a node last, by the node's name."""

from ..network.heard import Listened
from .identity import fingerprint_of
from .state import StateDir


class Hearing:
    """What the gateway notes by the fingerprints of keys, which are looked up once.

    Parameters
    ----------
    state : StateDir
        The federation's.
    """

    def __init__(self, state: StateDir) -> None:
        self._heard, self._keys = Listened(state.heard), state.keys
        self._fingerprints: dict[str, str] = {}

    def last(self, node: str) -> float | None:
        """In seconds since the epoch; 0 where it signed off, None where this gateway has never heard it."""
        self._fingerprints[node] = self._fingerprints.get(node) or fingerprint_of(self._keys, node)
        return self._heard.last(self._fingerprints[node])
