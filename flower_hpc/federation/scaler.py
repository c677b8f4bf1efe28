"""Keeps the numbers of nodes as the policies have them: looks, decides, writes down what was decided.

``elastic/`` of the state folder holds ``memory.json``, so that a new controller goes on where a killed one
was, and ``events.jsonl``: ``began`` (a controller looks from here on), ``seen`` (what it saw, whenever that
changes), ``scaled`` and ``held_back`` (what was decided, and the dollars an hour before and after).
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ..clock import WALL, Clock
from ..errors import FederationError
from ..telemetry.events import FILE, EventLog
from .activity import Activity
from .config import FederationConfig
from .desired import Desired
from .elastic import decide, fit
from .elastic_seen import Decision, Memory, Seen, cost, rules_of, targets
from .looking import bare, look, wish_of
from .node import Node
from .roster import Roster
from .state import StateDir, read_json, write_json

log = logging.getLogger(__name__)

EVERY_S = 2.0
OFTEN_S = 60.0
"""Of what is seen, which nodes a run uses is written down at most so often."""
MEMORY = "memory.json"
MOST_BYTES = 64 * 2**20


class Kept(BaseModel):
    """memory.json."""

    model_config = ConfigDict(frozen=True)

    memory: Memory = Memory()
    away: dict[str, float] = {}
    last: str = ""


class Scaler:
    """Decides how many nodes each site shall have.

    Parameters
    ----------
    state : StateDir
        The federation's.
    clock : Clock
        Default: the wall clock.
    activity : Activity, optional
        Where it learns what runs do. Default: from the state folder.
    """

    def __init__(self, state: StateDir, clock: Clock = WALL, activity: Activity | None = None) -> None:
        self._state, self._clock = state, clock
        self._activity = activity or Activity(state, clock)
        self._log: EventLog | None = None
        self._due = clock.now()
        self._told: Seen | None = None
        kept = self._read()
        # how long nothing was of use, nobody knows who was not there
        self.memory, self._away = kept.memory.model_copy(update={"busy": {}}), kept.away
        self._kept, self.last = kept, kept.last

    def counts(self, config: FederationConfig, desired: Desired, roster: Roster | None) -> dict[str, int]:
        """How many nodes each site shall have, once the user's wish has changed."""
        if not config.elastic:
            self.memory = Memory()
            return dict(desired.nodes)
        seen = bare(config, desired, roster, self._clock.wall())
        self.memory, decisions = fit(rules_of(config), self.memory, seen)
        if decisions:
            self._tell(decisions, seen)
        return self.shall(config, desired)

    def tick(
        self, config: FederationConfig, desired: Desired, roster: Roster, nodes: Mapping[str, Node]
    ) -> dict[str, int] | None:
        """Look and decide, if it is time to; how many nodes each site shall have, where that has changed."""
        if not config.elastic or self._clock.now() < self._due:
            return None
        self._due = self._clock.now() + EVERY_S
        self._activity.look()
        before = self.shall(config, desired)
        seen = bare(config, desired, roster, self._clock.wall())
        seen = look(seen, before, nodes, self._away, self._activity)
        self.memory, decisions = decide(rules_of(config), self.memory, seen)
        self._tell(decisions, seen)
        after = self.shall(config, desired)
        return after if after != before else None

    def shall(self, config: FederationConfig, desired: Desired) -> dict[str, int]:
        """How many nodes each site shall have now."""
        return targets(rules_of(config), self.memory, wish_of(config, desired))

    def extra(self, config: FederationConfig, desired: Desired) -> dict[str, int]:
        """By site: nodes beyond what the user asks for, or short of it, where there are any."""
        shall, wish = self.shall(config, desired), wish_of(config, desired)
        return {name: shall[name] - wish[name] for name in wish if shall[name] != wish[name]}

    def usd_per_hour(self, config: FederationConfig, desired: Desired) -> float:
        """What the nodes that shall be there cost."""
        return round(cost(rules_of(config), self.shall(config, desired)), 6)

    def _tell(self, decisions: list[Decision], seen: Seen) -> None:
        events = self._events()
        if decisions or self._is_news(seen):
            events.write("seen", seen=seen.model_dump(mode="json"))
            self._told = seen
        for one in decisions:
            kind = "held_back" if one.before == one.after else "scaled"
            events.write(kind, **asdict(one))
            self.last = said(one, self._clock.wall())
            log.info("%s", self.last)
        self._keep()

    def _is_news(self, seen: Seen) -> bool:
        if self._told is None or _standing(seen) != _standing(self._told):
            return True
        same = seen.model_copy(update={"time": self._told.time}) == self._told
        return not same and seen.time - self._told.time >= OFTEN_S

    def _keep(self) -> None:
        kept = Kept(memory=self.memory, away=dict(self._away), last=self.last)
        if _lasting(kept) != _lasting(self._kept):
            write_json(self._state.elastic / MEMORY, kept.model_dump(mode="json"))
            self._kept = kept

    def _events(self) -> EventLog:
        folder = self._state.elastic
        if self._log is None:
            self._log = EventLog(folder, self._clock)
            self._log.write("began")
        path = folder / FILE
        if path.exists() and path.stat().st_size > MOST_BYTES:
            path.replace(folder / f"old-{FILE}")
        return self._log

    def _read(self) -> Kept:
        try:
            return Kept.model_validate(read_json(self._state.elastic / MEMORY) or {})
        except (FederationError, ValidationError) as error:
            log.error("what was decided before is lost: %s", " ".join(str(error).split())[:300])
            return Kept()


def said(decision: Decision, at: float) -> str:
    """One line for people."""
    change = f"{decision.before} -> {decision.after}"
    if decision.before == decision.after:
        change = f"stays at {decision.after}"
    return f"{time.strftime('%H:%M:%S', time.localtime(at))} {decision.site} {change}: {decision.reason}"


def _standing(seen: Seen) -> Any:
    """What of it is written down at once when it changes."""
    found = seen.model_dump(exclude={"time": True, "blind": True, "sites": {"__all__": {"used", "why"}}})
    for site in found["sites"].values():  # what is not asked for yet is away since now, whenever that is
        site["away"] = [since for since in site["away"] if since < seen.time - 0.1]
    return found


def _lasting(kept: Kept) -> Any:
    return kept.model_dump(exclude={"memory": {"busy", "ran"}})
