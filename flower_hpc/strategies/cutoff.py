"""When does a round end? Cutoffs join with ``|``: the first that says so ends it.

First-k and deadline are the paper's partial aggregation (Ghimire et al. 2025, "straggler mitigation").
Whatever the cutoff, a round also ends when nobody is left to wait for.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError
from .checks import flag, is_number
from .situation import Situation


@dataclass(frozen=True)
class Progress:
    """What a cutoff sees of the round.

    Parameters
    ----------
    asked : int
        Nodes whose replies count.
    replied : int
        Fresh replies: to messages of this round.
    waiting : int
        Messages of this round that may still be answered.
    elapsed_s : float
        Seconds since the round's messages left.
    joined : int
        Updates that the next model has so far, late ones among them.
    under_way : collection of str
        Nodes whose train messages, of any round, may still be answered.
    now : float
        Seconds since the clock's epoch.
    memory : dict
        What policies keep.
    """

    asked: int
    replied: int
    waiting: int
    elapsed_s: float
    joined: int = 0
    under_way: Collection[str] = ()
    now: float = 0.0
    memory: dict[str, Any] = field(default_factory=dict)


class Cutoff(ABC):
    """A rule that ends rounds; subclass it for your own."""

    @abstractmethod
    def reason(self, progress: Progress) -> str | None:
        """Why the round ends now, or None to go on."""

    def due_s(self) -> float:
        """Seconds after dispatch at which time alone ends the round; infinite (default) if it never does."""
        return math.inf

    def check(self, num_nodes: int) -> None:
        """Refuse what cannot work with ``num_nodes`` nodes (ConfigError); default: anything works."""
        return

    @property
    def ends(self) -> bool:
        """Whether it ends rounds at all, so that nodes may be given more work meanwhile; default yes."""
        return True

    @property
    def counts_late(self) -> bool:
        """Whether late updates can end a round, so that it goes on while any is under way; default no."""
        return False

    def plan(self, predicted_s: Sequence[float | None], seen: Situation) -> "Cutoff":
        """The rule for one round, from the predicted seconds of its nodes; default: itself."""
        return self

    def __or__(self, other: "Cutoff") -> "AnyOf":
        """Whichever ends the round first."""
        return AnyOf(self, other)


@dataclass(frozen=True)
class AnyOf(Cutoff):
    """Ends when either of two cutoffs does; made by ``|``."""

    first: Cutoff
    second: Cutoff

    def reason(self, progress: Progress) -> str | None:
        """The first reason there is."""
        return self.first.reason(progress) or self.second.reason(progress)

    def due_s(self) -> float:
        """The earlier of the two."""
        return min(self.first.due_s(), self.second.due_s())

    def check(self, num_nodes: int) -> None:
        """Both have to fit."""
        self.first.check(num_nodes)
        self.second.check(num_nodes)

    @property
    def ends(self) -> bool:
        """Either does."""
        return self.first.ends or self.second.ends

    @property
    def counts_late(self) -> bool:
        """Either does."""
        return self.first.counts_late or self.second.counts_late

    def plan(self, predicted_s: Sequence[float | None], seen: Situation) -> Cutoff:
        """Either of what the two plan."""
        return AnyOf(self.first.plan(predicted_s, seen), self.second.plan(predicted_s, seen))


@dataclass(frozen=True)
class WaitForAll(Cutoff):
    """Wait until every node that was asked has answered, failed or gone offline: FedAvg's own rule."""

    def reason(self, progress: Progress) -> str | None:
        """None: the round ends only when nobody is left to wait for."""
        return None

    @property
    def ends(self) -> bool:
        """No."""
        return False


@dataclass(frozen=True)
class Deadline(Cutoff):
    """End the round a fixed time after its messages were sent.

    Parameters
    ----------
    seconds : float
        > 0. Count in what a node needs beside the work: Flower's idle poll is 3 s.
    """

    seconds: float

    def __post_init__(self) -> None:
        if not is_number(self.seconds) or not 0 < self.seconds < math.inf:
            raise ConfigError(f"deadline must be a number of seconds > 0, got {self.seconds!r}")

    def reason(self, progress: Progress) -> str | None:
        """Past the deadline?"""
        return f"deadline {self.seconds:g} s" if progress.elapsed_s >= self.seconds else None

    def due_s(self) -> float:
        """The deadline."""
        return self.seconds


@dataclass(frozen=True)
class FirstK(Cutoff):
    """End the round as soon as the ``k`` fastest of its nodes have answered.

    Parameters
    ----------
    k : int or float
        A number of replies (>= 1) or a fraction (0..1) of the nodes asked, rounded up. With fewer nodes idle
        than ``k`` the round waits for those that there are.
    late : bool
        Count late replies to earlier rounds too, as FedBuff's buffer does; ``k`` is then a whole number.
        Default False.
    """

    k: int | float
    late: bool = False

    def __post_init__(self) -> None:
        count = isinstance(self.k, int) and not isinstance(self.k, bool) and self.k >= 1
        fraction = isinstance(self.k, float) and 0 < self.k <= 1
        if not count and not fraction:
            raise ConfigError(f"k must be a whole number >= 1 or a fraction in (0, 1], got {self.k!r}")
        flag("late", self.late)
        if self.late and not count:
            raise ConfigError(f"k must be a whole number where late replies count, got {self.k!r}")

    @property
    def counts_late(self) -> bool:
        """As ``late`` says."""
        return self.late

    def needed(self, asked: int) -> int:
        """How many of ``asked`` replies end the round."""
        if isinstance(self.k, int):
            return min(self.k, asked)
        return math.ceil(self.k * asked - 1e-9)  # 0.7 * 10 is 7.000000000000001 in binary

    def reason(self, progress: Progress) -> str | None:
        """Are they here?"""
        if self.late:
            return f"{progress.joined} updates" if progress.joined >= self.k else None
        needed = self.needed(progress.asked)
        return f"first {needed} of {progress.asked}" if progress.replied >= needed else None

    def check(self, num_nodes: int) -> None:
        """A count above the number of nodes would never be reached; a buffer may hold a node twice."""
        if isinstance(self.k, int) and not self.late and self.k > num_nodes:
            raise ConfigError(f"k must be at most the number of nodes, {num_nodes}, got {self.k}")
