"""Resource-aware selection (Ghimire et al. 2025, "adaptive client selection and scheduling").

Nodes are scored by what their resources and history promise, the product of

    speed        min(1, T / t_i) ** penalty      t_i: predicted seconds, T: those of a node just fast enough
    reliability  (s_i + 2) / (s_i + f_i + 3)     mean of a Beta posterior over usable replies and failures,
                                                 exponentially forgotten
    balance      1 - exp(-w_i)                   w_i: rounds since it was last asked, over their average

and the best are taken. A node that failed ``n`` times in a row rests for ``2**n`` rounds,
then is tried again.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .checks import number, whole
from .ledger import Ledger
from .selection import N, Share, feasible, must_go, rounds_waited
from .situation import Situation


@dataclass(frozen=True)
class ResourceAware(Share):
    """Prefer nodes that will answer soon and surely; leave no healthy one out for long.

    Parameters
    ----------
    fraction : float
        Share of the nodes online that a round asks, in (0, 1], rounded down; default 1/3.
    at_least : int
        Ask this many even where the share is smaller; default 1.
    where : str
        Only nodes for which this holds, such as ``gpu_mem_gb >= 16``; default all.
    every : int
        Each healthy node takes part at least once in so many rounds (or in ``ceil(nodes / asked)`` where
        that is more), counted in rounds in which it was idle; default 20.
    penalty : float
        How much slowness counts, >= 0; default 2. 0 chooses by reliability and balance alone.
    longest_rest : int
        A failing node rests for at most so many rounds; default 32.
    """

    fraction: float = 1 / 3
    every: int = 20
    penalty: float = 2.0
    longest_rest: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("every", self.every)
        number("penalty", self.penalty, least=0)
        whole("longest_rest", self.longest_rest)

    @property
    def profiles(self) -> bool:
        """Yes: what a node has decides before its history can."""
        return True

    def choose(self, idle: Sequence[N], seen: Situation, wanted: int | None = None) -> list[N]:
        """Those whose turn it is, then the best."""
        eligible = self.eligible(idle, seen.ledger)
        # where all have failed, all are tried again rather than nobody
        nodes = [n for n in eligible if not self.rests(n.name, seen)] or eligible
        slots = min(self.count(seen.online, wanted), len(nodes))
        if not slots:
            return []
        seen.rng.shuffle(nodes)  # ties are broken by chance, not by name
        waited = {n.name: rounds_waited(n.name, seen) for n in nodes}
        nodes.sort(key=lambda n: -waited[n.name])
        every = feasible(self.every, len(nodes), slots)
        forced = nodes[: min(slots, must_go([waited[n.name] for n in nodes], slots, every))]
        rest = [n for n in nodes if n not in forced]
        times = {n.name: seen.ledger.predict_s(n.name) for n in nodes}
        pace = self._pace([times[n.name] for n in forced], list(times.values()), slots)
        usual = max(1.0, sum(waited.values()) / len(waited))

        def score(node: N) -> float:
            balance = 1 - math.exp(-waited[node.name] / usual)
            return self.score(node.name, times[node.name], pace, seen.ledger) * balance

        return forced + sorted(rest, key=score, reverse=True)[: slots - len(forced)]

    def rests(self, node: str, seen: Situation) -> bool:
        """True while a failing node is left alone."""
        past = seen.ledger.of(node)
        return past.in_a_row > 0 and seen.round <= past.last_failed + min(
            self.longest_rest, 2 ** min(past.in_a_row, 30)
        )

    def score(self, node: str, time_s: float | None, pace_s: float | None, ledger: Ledger) -> float:
        """Speed times reliability, in (0, 1]; a node of unknown speed counts as fast enough."""
        speed = 1.0 if not time_s or not pace_s else min(1.0, pace_s / time_s) ** self.penalty
        return speed * ledger.of(node).reliability

    def _pace(
        self, forced: Sequence[float | None], times: Sequence[float | None], slots: int
    ) -> float | None:
        # a round with a slow node whose turn it is lasts long anyway: others as slow may come along
        known, slow = sorted(t for t in times if t is not None), [t for t in forced if t is not None]
        return max([known[min(slots, len(known)) - 1], *slow]) if known else None
