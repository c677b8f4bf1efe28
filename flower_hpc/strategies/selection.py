"""Which idle nodes take part?"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ..errors import ConfigError

T = TypeVar("T")


class Selection(Protocol):
    """A choice among idle nodes."""

    def choose(self, idle: Sequence[T], online: int, rng: random.Random) -> list[T]:
        """Some of ``idle``; ``online`` counts the busy ones too."""
        ...


@dataclass(frozen=True)
class RandomSelection:
    """A uniform sample, as FedAvg takes it (McMahan et al. 2017, https://arxiv.org/abs/1602.05629).

    Parameters
    ----------
    fraction : float
        Share of the nodes online that a round asks, in (0, 1], rounded down; default 1.
    at_least : int
        Ask this many even where the share is smaller; default 1.
    """

    fraction: float = 1.0
    at_least: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.fraction, bool) or not 0 < self.fraction <= 1:
            raise ConfigError(f"fraction must be in (0, 1], got {self.fraction!r}")
        if isinstance(self.at_least, bool) or self.at_least < 1:
            raise ConfigError(f"at_least must be a whole number >= 1, got {self.at_least!r}")

    def choose(self, idle: Sequence[T], online: int, rng: random.Random) -> list[T]:
        """The sample, in random order."""
        wanted = max(self.at_least, int(self.fraction * online + 1e-9))
        return rng.sample(list(idle), min(wanted, len(idle)))
