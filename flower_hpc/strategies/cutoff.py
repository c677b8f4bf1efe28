"""When does a round end? Cutoffs join with ``|``: the first that says so ends it.

First-k and deadline partial aggregation: Ghimire et al. 2025, "straggler mitigation". Whatever the cutoff, a
round also ends when nobody is left to wait for.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from ..errors import ConfigError


@dataclass(frozen=True)
class Progress:
    """What a cutoff sees of the round: counts of nodes, and the seconds since their messages left."""

    asked: int
    replied: int
    waiting: int
    elapsed_s: float


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


@dataclass(frozen=True)
class WaitForAll(Cutoff):
    """Wait until every node that was asked has answered, failed or gone offline: FedAvg's own rule."""

    def reason(self, progress: Progress) -> str | None:
        """None: the round ends only when nobody is left to wait for."""
        return None


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
        if not _is_number(self.seconds) or not 0 < self.seconds < math.inf:
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
        A whole number >= 1 is a count of replies; a float in (0, 1] is a fraction of the nodes asked,
        rounded up. With fewer nodes idle than ``k`` the round waits for those that there are. Late replies
        to earlier rounds do not count.
    """

    k: int | float

    def __post_init__(self) -> None:
        count = isinstance(self.k, int) and not isinstance(self.k, bool) and self.k >= 1
        fraction = isinstance(self.k, float) and 0 < self.k <= 1
        if not count and not fraction:
            raise ConfigError(f"k must be a whole number >= 1 or a fraction in (0, 1], got {self.k!r}")

    def needed(self, asked: int) -> int:
        """How many of ``asked`` replies end the round."""
        if isinstance(self.k, int):
            return min(self.k, asked)
        return math.ceil(self.k * asked - 1e-9)  # 0.7 * 10 is 7.000000000000001 in binary

    def reason(self, progress: Progress) -> str | None:
        """Are they here?"""
        needed = self.needed(progress.asked)
        return f"first {needed} of {progress.asked}" if progress.replied >= needed else None

    def check(self, num_nodes: int) -> None:
        """A count above the number of nodes would never be reached."""
        if isinstance(self.k, int) and self.k > num_nodes:
            raise ConfigError(f"k must be at most the number of nodes, {num_nodes}, got {self.k}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
