"""Oort's participant selection (Lai et al. 2021, https://arxiv.org/abs/2010.06081, algorithm 1).

    U_i   = |B_i| sqrt(mean squared loss of its examples)            statistical utility
    score = U_i clipped at a quantile, scaled to [0, 1] + sqrt(0.1 ln R / L_i)      L_i: its last round
    score = score (T / t_i) ** alpha   where t_i > T                  system utility; T: preferred duration

Exploited nodes are drawn with probability proportional to score among those above a cut-off; the others asked
are new ones, fast ones first. Where the authors' code and paper differ (mended here, as the code does not
mean it: an index past the end, a division by round 0, explored lists used twice): the cut-off is 95 % of the
last exploited score, the paper's; a node that failed counts by its reliability as well, since its utility
would stay what it was.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .checks import number, positive, whole
from .selection import N, Share
from .situation import Situation

MEMORY = "oort"


@dataclass(frozen=True)
class Oort(Share):
    """Prefer nodes whose data still teach the model much and that answer soon.

    Parameters
    ----------
    fraction : float
        Share of the nodes online that a round asks, in (0, 1], rounded down; default 1/3.
    at_least : int
        Ask this many even where the share is smaller; default 1.
    where : str
        Only nodes for which this holds, such as ``site == "hpc"``; default all.
    alpha : float
        Penalty of nodes slower than preferred, >= 0; default 2, the paper's.
    explore, explore_decay, explore_least : float
        Share of those asked that are new ones, in [0, 1], its factor a round, its floor; default 0.9, 0.98
        and 0.3. With a few silos all are explored within rounds; nobody new left means no share is kept.
    clip : float
        Quantile at which utilities are clipped, in (0, 1]; default 0.95.
    cut_off : float
        Candidates score at least this share of the last one that would be taken, in [0, 1]; default 0.95.
    percentile : float
        Of the nodes' durations, where the preferred duration starts, in (0, 100]; default 30. 100: no limit.
    pace_rounds, pace_step : int, float
        Every so many rounds the percentile moves by so much: up where utility grows no more (changed by
        10 % at most), down where it changed fivefold; default 20 and 5.
    """

    fraction: float = 1 / 3
    alpha: float = 2.0
    explore: float = 0.9
    explore_decay: float = 0.98
    explore_least: float = 0.3
    clip: float = 0.95
    cut_off: float = 0.95
    percentile: float = 30.0
    pace_rounds: int = 20
    pace_step: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        number("alpha", self.alpha, least=0)
        for name in ("explore", "explore_decay", "explore_least", "cut_off"):
            number(name, getattr(self, name), least=0, most=1)
        positive("clip", self.clip, most=1)
        positive("percentile", self.percentile, most=100)
        whole("pace_rounds", self.pace_rounds)
        positive("pace_step", self.pace_step, most=100)

    @property
    def profiles(self) -> bool:
        """Yes: new nodes are explored by their speed."""
        return True

    def choose(self, idle: Sequence[N], seen: Situation, wanted: int | None = None) -> list[N]:
        """Exploit, explore."""
        nodes, ledger = self.eligible(idle, seen.ledger), seen.ledger
        slots = min(self.count(seen.online, wanted), len(nodes))
        if not slots:
            return []
        known = {n.name: statistical(ledger.of(n.name)) for n in nodes if ledger.of(n.name).last_round}
        new = [n for n in nodes if n.name not in known]
        state = self._pace(seen)
        share = max(self.explore_least, self.explore * self.explore_decay ** (seen.round - 1))
        exploring = min(len(new), max(round(share * slots), slots - len(known)))
        times = {n.name: ledger.predict_s(n.name) for n in nodes}
        chosen = self._exploit(known, times, slots - exploring, seen, state["percentile"])
        state["used"] += sum(known[name] for name in chosen)
        by_name = {n.name: n for n in nodes}
        return [by_name[name] for name in chosen] + _explore(new, times, exploring, seen)

    def scores(
        self,
        utilities: Mapping[str, float],
        rounds: Mapping[str, int],
        times: Mapping[str, float | None],
        number: int,
        percentile: float,
    ) -> dict[str, float]:
        """Every known node's score.

        Parameters
        ----------
        utilities, rounds, times : mapping
            By node: statistical utility; the last round that asked it, from 1; predicted seconds.
        number : int
            The current round.
        percentile : float
            Where the preferred duration lies.
        """
        preferred = preferred_s([t for name in utilities if (t := times.get(name))], percentile)
        scaled = clip_and_scale(utilities, self.clip)
        return {
            name: (value + temporal(number, rounds[name])) * penalty(times.get(name), preferred, self.alpha)
            for name, value in scaled.items()
        }

    def _exploit(
        self,
        known: Mapping[str, float],
        times: Mapping[str, float | None],
        count: int,
        seen: Situation,
        percentile: float,
    ) -> list[str]:
        if count <= 0 or not known:
            return []
        past = {name: seen.ledger.of(name) for name in known}
        rounds = {name: past[name].last_round for name in known}
        scores = self.scores(known, rounds, times, seen.round, percentile)
        scores = {name: score * past[name].reliability for name, score in scores.items()}
        ranked = sorted(scores.values(), reverse=True)
        line = self.cut_off * ranked[min(count, len(ranked)) - 1]
        pool = {name: score for name, score in sorted(scores.items()) if score >= line}
        return draw(pool, min(count, len(pool)), seen)

    def _pace(self, seen: Situation) -> dict[str, Any]:
        state = seen.keep(MEMORY)
        if not state:
            state |= {"percentile": self.percentile, "used": 0.0, "before": None, "moved": seen.round}
        if seen.round - state["moved"] >= self.pace_rounds:
            state["percentile"] = paced(state["percentile"], state["before"], state["used"], self.pace_step)
            state |= {"before": state["used"], "used": 0.0, "moved": seen.round}
        return state


def statistical(past: Any) -> float:
    """``|B| sqrt(mean squared loss)``; the mean loss stands in where a client reports no squares."""
    loss = past.loss_rms if past.loss_rms is not None else past.loss
    return float((past.examples or 0.0) * (loss or 0.0))


def clip_and_scale(utilities: Mapping[str, float], quantile: float) -> dict[str, float]:
    """Clip at a quantile, then map [min, max] to [0, 1]; all 1 where they are equal."""
    values = np.array(list(utilities.values()), float)
    top = np.quantile(values, quantile)
    clipped = np.minimum(values, top)
    low, width = clipped.min(), clipped.max() - clipped.min()
    scaled = (clipped - low) / width if width > 0 else np.ones_like(clipped)
    return dict(zip(utilities, scaled.tolist(), strict=True))


def temporal(number: int, last: int) -> float:
    """``sqrt(0.1 ln R / L)``: who has not been asked for long may have changed."""
    return math.sqrt(0.1 * math.log(max(1, number)) / max(1, last))


def preferred_s(times: Sequence[float], percentile: float) -> float:
    """The preferred round duration; infinite where the percentile is 100 or nothing is known."""
    return math.inf if percentile >= 100 or not times else float(np.percentile(times, percentile))


def penalty(time_s: float | None, preferred: float, alpha: float) -> float:
    """``(T / t) ** alpha`` for those slower than preferred, else 1."""
    return 1.0 if not time_s or time_s <= preferred else (preferred / time_s) ** alpha


def paced(percentile: float, before: float | None, used: float, step: float) -> float:
    """The pacer: more patience where utility stagnates, less where it has jumped."""
    if before is None:
        return percentile
    change = abs(used - before)
    if change <= 0.1 * before:
        return min(100.0, percentile + step)
    return max(step, percentile - step) if change >= 5 * before else percentile


def draw(scores: Mapping[str, float], count: int, seen: Situation) -> list[str]:
    """``count`` names without repetition, each time with probability proportional to the score."""
    left, chosen = dict(scores), []
    for _ in range(count):
        names = list(left)
        weights = [left[name] for name in names]
        (name,) = seen.rng.choices(names, weights if sum(weights) > 0 else None)
        chosen.append(name)
        del left[name]
    return chosen


def _explore(new: Sequence[N], times: Mapping[str, float | None], count: int, seen: Situation) -> list[N]:
    speeds = {n.name: 1 / max(t, 1e-6) if (t := times[n.name]) else 1.0 for n in new}
    by_name = {n.name: n for n in new}
    return [by_name[name] for name in draw(speeds, count, seen)]
