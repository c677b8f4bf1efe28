"""What a policy sees of the run when it is asked; policies themselves are frozen."""

import math
import random
from dataclasses import dataclass, field
from typing import Any

from .ledger import Ledger


@dataclass(frozen=True)
class Situation:
    """One moment of a run.

    Parameters
    ----------
    round : int
        The current round, from 1.
    now : float
        Seconds since the clock's epoch.
    online : int
        Nodes online, busy ones too.
    ledger : Ledger
        What is known of the nodes.
    rng : random.Random
        The run's own, saved with its checkpoints.
    memory : dict
        What policies keep between rounds, each under its own name: plain values and arrays, saved with the
        checkpoints.
    due_s : float
        Seconds until time alone cuts this round; infinite if it never does.
    """

    round: int = 1
    now: float = 0.0
    online: int = 0
    ledger: Ledger = field(default_factory=Ledger)
    rng: random.Random = field(default_factory=random.Random)
    memory: dict[str, Any] = field(default_factory=dict)
    due_s: float = math.inf

    def keep(self, name: str) -> dict[str, Any]:
        """A policy's own part of the memory, empty at first."""
        kept: dict[str, Any] = self.memory.setdefault(name, {})
        return kept
