"""FedCompass' scheduler (Li et al. 2024, https://arxiv.org/abs/2309.14675): a group's nodes arrive together.

A node's pace ``v`` is its seconds a step, transfer and queue included. When it gets the model it joins the
group in which it can do most steps by the expected arrival ``T``, ``q = floor((T - now) / v)`` within
``[q_min, q_max]``; where none fits it opens a group: the very first with ``q_max`` steps, later ones so that
the fastest node could do ``q_max`` steps after an open group's latest time. A group's model is made when its
last member has arrived, or at its latest time ``L = now + (T - now) latency``; members wait for that. Who
comes later, or has no group yet, gets the current model at once, and its update joins the next model,
whichever group's.

Here an update that is early for its own group also joins the next model made, rather than wait for the
group's: it is worth more fresh; its node does wait. Times are read from the clock by the loop, so no timer
can fire while a group is being made, and a node that dies leaves its group.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from ..protocol import LOCAL_STEPS
from .checks import number, whole
from .cutoff import Cutoff, Progress
from .situation import Situation
from .work import Assignment, Work

MEMORY = "compass"
Group = dict[str, Any]  # due, latest: seconds since the epoch; members: {node: arrived}


@dataclass(frozen=True)
class Compass(Work, Cutoff):
    """Local steps such that a group's nodes arrive together; give the same object as work and as cutoff.

    Parameters
    ----------
    q_min, q_max : int
        Fewest and most local steps, 1 <= q_min <= q_max; default 20 and 100. A node whose pace is not known
        does ``q_min``.
    latency : float
        Factor lambda between expected and latest arrival, >= 1; default 1.5.
    """

    q_min: int = 20
    q_max: int = 100
    latency: float = 1.5

    def __post_init__(self) -> None:
        whole("q_min", self.q_min)
        whole("q_max", self.q_max)
        number("latency", self.latency, least=1)
        if self.q_max < self.q_min:
            raise ConfigError(f"q_max must be at least q_min, {self.q_min}, got {self.q_max}")

    def assign(self, nodes: Sequence[str], seen: Situation) -> dict[str, Assignment]:
        """Steps for each, and a group."""
        groups, paces = _groups(seen.memory), self._paces(seen)
        # fast ones first: the first group is theirs
        ordered = sorted(nodes, key=lambda n: (paces.get(n, math.inf), n))
        return {node: {LOCAL_STEPS: self._join(node, groups, paces, seen.now)} for node in ordered}

    def holds(self, node: str, seen: Situation) -> bool:
        """Whether it has arrived and its group has not."""
        return any(
            group["members"].get(node, False) and not _over(group, seen.now)
            for group in _groups(seen.memory).values()
        )

    def answered(self, node: str, seen: Situation) -> None:
        """It has arrived."""
        for group in _groups(seen.memory).values():
            if node in group["members"]:
                group["members"][node] = True

    def lost(self, node: str, seen: Situation) -> None:
        """Nobody waits for it."""
        for group in _groups(seen.memory).values():
            group["members"].pop(node, None)

    def closed(self, seen: Situation, under_way: Collection[str]) -> None:
        """Who has gone leaves; groups that are complete, empty or past their time are no more."""
        groups = _groups(seen.memory)
        for group in groups.values():
            group["members"] = _present(group, under_way)
        for key in [k for k, group in groups.items() if _over(group, seen.now)]:
            del groups[key]

    @property
    def counts_late(self) -> bool:
        """Groups outlast rounds."""
        return True

    def reason(self, progress: Progress) -> str | None:
        """Is a group complete, or past its latest time with somebody there?"""
        for key, group in _groups(progress.memory).items():
            members = _present(group, progress.under_way)
            arrived = sum(members.values())
            if arrived and progress.joined and (all(members.values()) or progress.now >= group["latest"]):
                return f"group {key}: {arrived} of {len(group['members'])} arrived"
        return None

    def _paces(self, seen: Situation) -> dict[str, float]:
        known = {name: seen.ledger.of(name).pace_s for name in seen.ledger.names()}
        return {name: pace for name, pace in known.items() if pace}

    def _join(self, node: str, groups: dict[str, Group], paces: Mapping[str, float], now: float) -> int:
        if node not in paces:
            return self.q_min
        pace = paces[node]
        fits = {key: steps_by(group["due"], now, pace) for key, group in groups.items()}
        fits = {key: q for key, q in fits.items() if self.q_min <= q <= self.q_max}
        if fits:
            key, steps = max(fits.items(), key=lambda item: item[1])
            groups[key]["members"][node] = False
            return steps
        steps = self._open_with(groups, pace, min(paces.values()), now)
        due = now + steps * pace
        name = str(1 + max(map(int, groups), default=0))
        groups[name] = {"due": due, "latest": now + (due - now) * self.latency, "members": {node: False}}
        return steps

    def _open_with(self, groups: Mapping[str, Group], pace: float, fastest: float, now: float) -> int:
        later = [
            steps_by(group["latest"] + fastest * self.q_max, now, pace)
            for group in groups.values()
            if group["latest"] > now
        ]
        return min(self.q_max, max(self.q_min, max(later))) if later else self.q_max


def steps_by(due: float, now: float, pace_s: float) -> int:
    """``floor((T - now) / v)``."""
    return math.floor((due - now) / pace_s)


def _present(group: Group, under_way: Collection[str]) -> dict[str, bool]:
    # who neither has arrived nor is on the way has gone
    return {node: there for node, there in group["members"].items() if there or node in under_way}


def _over(group: Group, now: float) -> bool:
    return now >= group["latest"] or all(group["members"].values())


def _groups(memory: dict[str, Any]) -> dict[str, Group]:
    groups: dict[str, Group] = memory.setdefault(MEMORY, {})
    return groups
