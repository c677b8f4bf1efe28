"""Which idle nodes take part?"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from .checks import positive, whole
from .criteria import Where
from .ledger import Ledger
from .situation import Situation

KNOWN_WITHOUT_PROFILE = {"name"}  # a site too may be a label that only the node knows


class Named(Protocol):
    """A node, by its stable name."""

    @property
    def name(self) -> str:
        """The name."""
        ...


N = TypeVar("N", bound=Named)


class Selection(ABC):
    """A choice among idle nodes; subclass it for your own."""

    @abstractmethod
    def choose(self, idle: Sequence[N], seen: Situation, wanted: int | None = None) -> list[N]:
        """Some of ``idle``, sound nodes in order of their names; ``wanted`` stands for its own number."""

    @property
    def profiles(self) -> bool:
        """Whether nodes are asked for their resources before they train; default no."""
        return False

    def eligible(self, idle: Sequence[N], ledger: Ledger) -> list[N]:
        """Those of ``idle`` that may be chosen at all; default all."""
        return list(idle)

    def count(self, online: int, wanted: int | None) -> int:
        """How many to choose of ``online`` nodes, if there are so many; default all."""
        return online if wanted is None else wanted


@dataclass(frozen=True)
class Share(Selection):
    """How many nodes, and which may be chosen at all: what all our selections have in common.

    Parameters
    ----------
    fraction : float
        Share of the nodes online that a round asks, in (0, 1], rounded down; default 1.
    at_least : int
        Ask this many even where the share is smaller; default 1.
    where : str
        Only nodes for which this holds, such as ``site == "hpc" and gpu_mem_gb >= 16``
        (:mod:`.criteria`); default all. What a node has not told makes it untrue.
    """

    fraction: float = 1.0
    at_least: int = 1
    where: str = ""

    def __post_init__(self) -> None:
        positive("fraction", self.fraction, most=1.0)
        whole("at_least", self.at_least)
        if self.where:
            Where(self.where)

    @property
    def profiles(self) -> bool:
        """True where the criteria ask for what only the node can tell."""
        return bool(self.where) and not Where(self.where).needs <= KNOWN_WITHOUT_PROFILE

    def count(self, online: int, wanted: int | None) -> int:
        """How many to choose, if there are so many."""
        return max(self.at_least, int(self.fraction * online + 1e-9)) if wanted is None else wanted

    def eligible(self, idle: Sequence[N], ledger: Ledger) -> list[N]:
        """Those that meet the criteria."""
        if not self.where:
            return list(idle)
        where = Where(self.where)
        return [node for node in idle if where.matches(ledger.facts(node.name))]


@dataclass(frozen=True)
class RandomSelection(Share):
    """A uniform sample, as FedAvg takes it (McMahan et al. 2017, https://arxiv.org/abs/1602.05629).

    Parameters
    ----------
    fraction : float
        Share of the nodes online that a round asks, in (0, 1], rounded down; default 1.
    at_least : int
        Ask this many even where the share is smaller; default 1.
    where : str
        Only nodes for which this holds, such as ``site == "hpc" and gpu_mem_gb >= 16``; default all.
    """

    def choose(self, idle: Sequence[N], seen: Situation, wanted: int | None = None) -> list[N]:
        """The sample, in random order."""
        nodes = self.eligible(idle, seen.ledger)
        return seen.rng.sample(nodes, min(self.count(seen.online, wanted), len(nodes)))


def rounds_waited(node: str, seen: Situation) -> int:
    """Rounds since a node was last asked; since the beginning for one that never was."""
    return seen.round - seen.ledger.of(node).last_round


def must_go(waited: Sequence[int], slots: int, every: int) -> int:
    """How many of those who waited longest have to go now, so that nobody waits ``every`` rounds.

    With at most ``slots`` a round: the largest over j of (those due within j rounds) - (j - 1) slots, the
    feasibility bound of earliest-deadline-first.

    Parameters
    ----------
    waited : sequence of int
        Rounds since each was last asked: 1 = in the last round.
    slots, every : int
        Nodes a round; rounds within which each has to take part, ``>= ceil(len(waited) / slots)``.
    """
    left = sorted(max(1, every - w + 1) for w in waited)  # 1: due in this round
    need = [due_by - (left[due_by - 1] - 1) * slots for due_by in range(1, len(left) + 1)]
    return min(len(left), max([0, *need]))


def feasible(every: int, nodes: int, slots: int) -> int:
    """``every``, or the fewest rounds in which ``slots`` a round can serve ``nodes``."""
    return max(every, math.ceil(nodes / max(1, slots)))
