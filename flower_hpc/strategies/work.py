"""How much does each selected node do?"""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from ..errors import ConfigError
from ..protocol import DEADLINE_S, MAX_STEPS
from .checks import positive, whole
from .situation import Situation

ConfigValue = bool | int | float | str | bytes | list[str]
Assignment = Mapping[str, ConfigValue]
NOTHING: Assignment = MappingProxyType({})


class Work(ABC):
    """An assignment of work; subclass it for your own. All hooks but :meth:`assign` may be left out."""

    @abstractmethod
    def assign(self, nodes: Sequence[str], seen: Situation) -> dict[str, Assignment]:
        """What to write into the config of the message to each of ``nodes``."""

    def holds(self, node: str, seen: Situation) -> bool:
        """Whether an idle node is to wait for others rather than be asked now; default no."""
        return False

    def answered(self, node: str, seen: Situation) -> None:
        """A usable reply of ``node`` came."""
        return

    def lost(self, node: str, seen: Situation) -> None:
        """A message to ``node`` failed or will not be answered."""
        return

    def admits(self, node: str, queue_s: float, seen: Situation) -> bool:
        """Whether a fresh reply, so long in a queue, joins this model; else the next one. Default yes."""
        return True

    def closed(self, seen: Situation, under_way: Collection[str]) -> None:
        """The round was cut, while the nodes ``under_way`` still work."""
        return


@dataclass(frozen=True)
class FixedWork(Work):
    """The same work for every node: what the app's own config says.

    Parameters
    ----------
    config : mapping
        Entries to add to every train message's config, such as ``{"proximal-mu": 0.01}``; default none.
    """

    config: Assignment = field(default_factory=lambda: NOTHING)

    def __post_init__(self) -> None:
        entries = self.config.items() if isinstance(self.config, Mapping) else [(None, None)]
        if not all(
            isinstance(k, str) and isinstance(v, bool | int | float | str | bytes) for k, v in entries
        ):
            raise ConfigError(f"config must map names to numbers, texts or true/false, got {self.config!r}")

    def assign(self, nodes: Sequence[str], seen: Situation) -> dict[str, Assignment]:
        """The same for each."""
        return dict.fromkeys(nodes, self.config)


@dataclass(frozen=True)
class Also(Work):
    """Another policy's work, with more entries in each message's config.

    Parameters
    ----------
    work : Work
        Asked for everything.
    config : mapping
        The entries.
    """

    work: Work
    config: Assignment

    def assign(self, nodes: Sequence[str], seen: Situation) -> dict[str, Assignment]:
        """What the other assigns, and the entries."""
        work = self.work.assign(nodes, seen)
        return {node: {**work.get(node, NOTHING), **self.config} for node in nodes}

    def holds(self, node: str, seen: Situation) -> bool:
        """As the other."""
        return self.work.holds(node, seen)

    def answered(self, node: str, seen: Situation) -> None:
        """As the other."""
        self.work.answered(node, seen)

    def lost(self, node: str, seen: Situation) -> None:
        """As the other."""
        self.work.lost(node, seen)

    def admits(self, node: str, queue_s: float, seen: Situation) -> bool:
        """As the other."""
        return self.work.admits(node, queue_s, seen)

    def closed(self, seen: Situation, under_way: Collection[str]) -> None:
        """As the other."""
        self.work.closed(seen, under_way)


@dataclass(frozen=True)
class FitDeadline(Work):
    """As many local steps as a node can finish before the round is cut: slower nodes do less, and count.

    FedProx's partial work (Li et al. 2020, https://arxiv.org/abs/1812.06127), sized by what the ledger has
    measured: ``floor((margin T - overhead_i) / seconds per step_i)``, where the overhead is queue, transfer
    and start. A node never does more than its own epochs. One whose speed is unknown gets a time budget
    alone, as does everybody whose app does not report ``num-steps``. Needs a cutoff by time; without one it
    is :class:`FixedWork`.

    Parameters
    ----------
    margin : float
        Share of the time until the cut that is planned for, in (0, 1]; default 0.9.
    min_steps : int
        Never less; default 1.
    """

    margin: float = 0.9
    min_steps: int = 1

    def __post_init__(self) -> None:
        positive("margin", self.margin, most=1.0)
        whole("min_steps", self.min_steps)

    def assign(self, nodes: Sequence[str], seen: Situation) -> dict[str, Assignment]:
        """Steps and seconds for each."""
        return {node: self._fit(node, seen) for node in nodes} if math.isfinite(seen.due_s) else {}

    def _fit(self, node: str, seen: Situation) -> Assignment:
        past = seen.ledger.of(node)
        seconds = self.margin * seen.due_s
        seconds = max(seconds - (past.overhead_s or 0.0), 0.1 * seconds)
        if past.step_s is None:
            return {DEADLINE_S: seconds}
        steps = max(self.min_steps, math.floor(seconds / past.step_s)) if past.step_s else None
        if steps is None or (past.full_steps is not None and steps >= past.full_steps):
            return {DEADLINE_S: seconds}
        return {DEADLINE_S: seconds, MAX_STEPS: steps}
