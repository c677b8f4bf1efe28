"""What is a late update worth? A weight in [0, 1] from its staleness.

Staleness tau counts model versions: how many times the server has aggregated since it sent the node the
model that the node's update is against. tau = 0 is always worth 1. ``max_staleness``: updates older than this
are dropped, and the server lets go of the model versions that they started from; default 20.

Constant, polynomial and hinge are FedAsync's (Xie et al. 2019, https://arxiv.org/abs/1903.03934,
section 5.2); harmonic and exponential are FedQueue's.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from .checks import number, positive, whole

OLDEST = 20


class Staleness(ABC):
    """A discount for age; subclass it for your own."""

    @abstractmethod
    def weight(self, tau: int) -> float:
        """Worth of an update that is ``tau`` versions old; 0 leaves it out."""


@dataclass(frozen=True)
class Discard(Staleness):
    """Late updates are counted and dropped."""

    def weight(self, tau: int) -> float:
        """1 for a fresh update, else 0."""
        return 1.0 if tau == 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class _Bounded(Staleness):
    max_staleness: int | None = OLDEST

    def __post_init__(self) -> None:
        if self.max_staleness is not None:
            whole("max_staleness", self.max_staleness)

    def weight(self, tau: int) -> float:
        """The discount; 0 beyond ``max_staleness``."""
        if self.max_staleness is not None and tau > self.max_staleness:
            return 0.0
        return float(self._discount(tau)) if tau > 0 else 1.0

    @abstractmethod
    def _discount(self, tau: int) -> float: ...


@dataclass(frozen=True)
class Constant(_Bounded):
    """Late updates count in full: FedAsync's constant."""

    def _discount(self, tau: int) -> float:
        return 1.0


@dataclass(frozen=True)
class Polynomial(_Bounded):
    """``(1 + tau) ** -a``: FedAsync's polynomial, and FedBuff's ``1 / sqrt(1 + tau)``.

    Parameters
    ----------
    a : float
        >= 0; default 0.5, the papers'. 0 takes late updates at full weight.
    max_staleness : int, optional
        Updates older than this are dropped; default 20, None: never.
    """

    a: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        number("polynomial exponent a", self.a, least=0)

    def _discount(self, tau: int) -> float:
        return float((1 + tau) ** -self.a)


@dataclass(frozen=True)
class Hinge(_Bounded):
    """1 up to ``tau = b``, then ``1 / (a (tau - b) + 1)``: FedAsync's hinge.

    Parameters
    ----------
    a : float
        > 0; default 10, the paper's.
    b : int
        >= 0; default 4, the paper's.
    max_staleness : int, optional
        Updates older than this are dropped; default 20, None: never.
    """

    a: float = 10.0
    b: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("hinge slope a", self.a)
        whole("hinge start b", self.b, least=0)

    def _discount(self, tau: int) -> float:
        return 1.0 if tau <= self.b else 1 / (self.a * (tau - self.b) + 1)


@dataclass(frozen=True)
class Harmonic(_Bounded):
    """``1 / (1 + beta tau)``: FedQueue's default (FedQueue 2026, https://arxiv.org/abs/2605.02125).

    Parameters
    ----------
    beta : float
        >= 0; default 0.5.
    max_staleness : int, optional
        Updates older than this are dropped; default 20, None: never.
    """

    beta: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        number("harmonic beta", self.beta, least=0)

    def _discount(self, tau: int) -> float:
        return 1 / (1 + self.beta * tau)


@dataclass(frozen=True)
class Exponential(_Bounded):
    """``exp(-beta tau)``: FedQueue's other one (FedQueue 2026, https://arxiv.org/abs/2605.02125).

    Parameters
    ----------
    beta : float
        >= 0; default 0.5.
    max_staleness : int, optional
        Updates older than this are dropped; default 20, None: never.
    """

    beta: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        number("exponential beta", self.beta, least=0)

    def _discount(self, tau: int) -> float:
        return math.exp(-self.beta * tau)
