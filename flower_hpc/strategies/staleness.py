"""What is a late update worth? A weight in [0, 1] from its staleness.

Staleness tau counts model versions: how many times the server has aggregated since it sent the node the
model that the node's update is against. tau = 0 is always worth 1.
"""

import math
from dataclasses import dataclass
from typing import Protocol

from ..errors import ConfigError


class Staleness(Protocol):
    """A discount for age."""

    def weight(self, tau: int) -> float:
        """Worth of an update that is ``tau`` versions old; 0 leaves it out."""
        ...


@dataclass(frozen=True)
class Discard:
    """Late updates are counted and dropped."""

    def weight(self, tau: int) -> float:
        """1 for a fresh update, else 0."""
        return 1.0 if tau == 0 else 0.0


@dataclass(frozen=True)
class Polynomial:
    """``(1 + tau) ** -a`` (FedAsync, Xie et al. 2019, https://arxiv.org/abs/1903.03934, section 5.2).

    Parameters
    ----------
    a : float
        >= 0; default 0.5, the paper's and FedBuff's. 0 takes late updates at full weight.
    max_staleness : int, optional
        Updates older than this are dropped, and the server lets go of the model versions that they
        started from; default 20.
    """

    a: float = 0.5
    max_staleness: int | None = 20

    def __post_init__(self) -> None:
        if isinstance(self.a, bool) or not isinstance(self.a, int | float) or not 0 <= self.a < math.inf:
            raise ConfigError(f"polynomial exponent a must be a number >= 0, got {self.a!r}")
        limit = self.max_staleness
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise ConfigError(f"max_staleness must be a whole number >= 1 or None, got {limit!r}")

    def weight(self, tau: int) -> float:
        """The discount."""
        if self.max_staleness is not None and tau > self.max_staleness:
            return 0.0
        return float((1 + tau) ** -self.a)
