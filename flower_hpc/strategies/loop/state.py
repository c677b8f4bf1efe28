"""What outlives a round: the round's number, the ledger, chance, and what policies keep."""

import math
import random
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...clock import WALL, Clock
from ...protocol import UNNAMED
from ..ledger import Ledger
from ..situation import Situation


@dataclass
class RunState:
    """Shared by the parts of a run, changed under the collector's lock, saved with each checkpoint."""

    clock: Clock = WALL
    rng: random.Random = field(default_factory=random.Random)
    ledger: Ledger = field(default_factory=Ledger)
    memory: dict[str, Any] = field(default_factory=dict)
    round: int = 0
    key: str = field(default_factory=lambda: UNNAMED + secrets.token_hex(8))
    """What tells this run from others on a node's disk; the same after a resume."""
    online: int = 0
    due_s: float = math.inf
    """When time alone cuts the present round, in seconds from its dispatch."""
    dispatched: float | None = None
    """The clock's ``now()`` then."""

    def situation(self) -> Situation:
        """As a policy sees it."""
        gone = 0.0 if self.dispatched is None else self.clock.now() - self.dispatched
        left = max(0.0, self.due_s - gone)
        return Situation(self.round, self.clock.wall(), self.online, self.ledger, self.rng, self.memory, left)

    def to_tree(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        ledger, rng = self.ledger.to_json(), self.rng.getstate()
        plain = {"round": self.round, "key": self.key, "memory": self.memory}
        return {**plain, "ledger": ledger, "rng": rng}

    def restore(self, tree: Mapping[str, Any]) -> None:
        """Take over what :meth:`to_tree` gave."""
        self.round, self.key, self.memory = tree["round"], tree["key"], tree["memory"]
        self.ledger.restore(tree["ledger"])
        self.rng.setstate(tree["rng"])
