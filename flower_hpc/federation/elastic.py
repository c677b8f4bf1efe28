"""How many nodes each site shall have beside what its user asks for: a pure function of what is seen.

:func:`decide` takes the rules, what it remembers and what is seen, and returns what it remembers from then on
and what it decided. Two parts are added to the user's wish: ``own``, by which a site's autoscale grows or
shrinks it, and ``lent``, the nodes that replace another site's. What goes back makes room first; then lost
nodes are replaced, then sites grow, cheapest first, as far as the budget, the partitions and the sites' own
bounds allow. With the same input again it decides nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from .elastic_seen import Decision, Memory, Rules, Seen, cost, targets
from .fields import MOST_NODES

Kind = Literal["own", "lent"]
MINUTE = 60.0
A_CENT = 1e-9
LENT = "lent "
ROUNDS = 5


@dataclass(frozen=True)
class _Ask:
    kind: Kind
    key: str
    """Whose part it is: the site, or the home whose nodes are replaced."""
    site: str
    by: int
    reason: str

    @property
    def name(self) -> str:
        return f"{self.kind} {self.key}"


def decide(rules: Rules, memory: Memory, seen: Seen) -> tuple[Memory, list[Decision]]:
    """What to change now; see the module's text."""
    account = _Account(rules, notice(rules, memory, seen), seen)
    account.fit()
    for _ in range(ROUNDS):  # what one gives back, another may have
        known = len(account.decisions)
        asks = [*_bursts(rules, account.memory(), seen), *_autoscale(rules, account.memory(), seen)]
        for ask in sorted(asks, key=lambda ask: _urgency(ask, rules)):
            account.grant(ask)
        if len(account.decisions) == known:
            break
    return account.memory(), account.decisions


def fit(rules: Rules, memory: Memory, seen: Seen) -> tuple[Memory, list[Decision]]:
    """What has to go back at once, because the user's wish or the rules have changed."""
    account = _Account(rules, notice(rules, memory, seen), seen)
    account.fit()
    return account.memory(), account.decisions


def notice(rules: Rules, memory: Memory, seen: Seen) -> Memory:
    """What was seen, remembered; `up` and `scale` undo what had shrunk, and what is asked for anew."""
    scaled = {site for site, rule in rules.sites.items() if rule.autoscale is not None and site in seen.sites}
    bursts = {site for site, rule in rules.sites.items() if rule.burst is not None and site in seen.sites}
    anew = memory.generation != seen.generation
    busy = {site: seen.time if anew else memory.busy.get(site, seen.time) for site in scaled}
    for site in scaled:
        if seen.run is not None:
            busy[site] = max(busy[site], seen.run, seen.time if _in_use(seen, site) else 0.0)
    return memory.model_copy(
        update={
            "generation": seen.generation,
            "wish": {site: one.wish for site, one in seen.sites.items()},
            "own": {
                site: n
                for site, n in memory.own.items()
                if site in scaled and not (anew and (n < 0 or memory.wish.get(site) != seen.sites[site].wish))
            },
            "lent": {home: n for home, n in memory.lent.items() if home in bursts},
            "busy": busy,
            "changed": {site: at for site, at in memory.changed.items() if site.removeprefix(LENT) in scaled},
            "ran": seen.time if seen.run is not None else memory.ran,
        }
    )


def _in_use(seen: Seen, site: str) -> bool:
    # nodes that are awaited while a run goes on are no idle ones
    return seen.blind or seen.sites[site].used > 0 or bool(seen.sites[site].away)


def _urgency(ask: _Ask, rules: Rules) -> tuple[bool, bool, float]:
    return ask.by > 0, ask.kind == "own", rules.sites[ask.site].usd_per_hour


def _bursts(rules: Rules, memory: Memory, seen: Seen) -> Iterator[_Ask]:
    for home, rule in rules.sites.items():
        burst, site = rule.burst, seen.sites.get(home)
        if burst is None or site is None or burst.to not in seen.sites:
            continue
        lent = memory.lent.get(home, 0)
        late = sum(seen.time - since >= burst.after_queue_minutes * MINUTE for since in site.away)
        shaky = sum(seen.time - since < burst.back_after_minutes * MINUTE for since in site.online)
        wanted = max(late, min(lent, len(site.away) + shaky))
        wanted = min(wanted, burst.max or MOST_NODES)
        if burst.idle_minutes is not None and _idle(memory, seen, burst.idle_minutes):
            reason = f"no run for {burst.idle_minutes:g} min: {home}'s nodes need no replacement"
            wanted = 0
        elif wanted > lent:
            why = f" ({site.why})" if site.why else ""
            reason = f"{late} of {home}'s {len(site.away) + len(site.online)} nodes are away for "
            reason += f"{burst.after_queue_minutes:g} min or more{why}"
        else:
            reason = f"{home}'s nodes are online again, or no longer wanted"
        if wanted != lent:
            yield _Ask("lent", home, burst.to, wanted - lent, reason)


def _idle(memory: Memory, seen: Seen, minutes: float) -> bool:
    return seen.run is None and (memory.ran is None or seen.time - memory.ran >= minutes * MINUTE)


def _autoscale(rules: Rules, memory: Memory, seen: Seen) -> Iterator[_Ask]:
    all_of = targets(rules, memory, {name: site.wish for name, site in seen.sites.items()})
    for name, rule in rules.sites.items():
        scale, site = rule.autoscale, seen.sites.get(name)
        if scale is None or site is None:
            continue
        mine = site.wish + memory.own.get(name, 0)
        # what stands in for others comes and goes too: in the same look nothing is known of the new number
        moved = max(memory.changed.get(name, 0.0), memory.changed.get(f"{LENT}{name}", 0.0))
        at_work = seen.time > moved and not seen.blind
        at_work = at_work and len(site.online) >= all_of[name] and site.used >= all_of[name]
        began = seen.run is not None and seen.run > memory.changed.get(name, 0.0)
        least = max(site.wish, scale.min, 1)
        if began and mine < least:
            yield _Ask("own", name, name, least - mine, "a run began")
        elif seen.run is not None and 0 < mine < scale.max and at_work:
            more = min(max(2 * mine, least), scale.max) - mine
            yield _Ask("own", name, name, more, f"all {all_of[name]} nodes are in use")
        elif mine > scale.min and seen.time - memory.busy[name] > scale.idle_minutes * MINUTE:
            reason = f"none of its nodes was of use for {scale.idle_minutes:g} min"
            yield _Ask("own", name, name, scale.min - mine, reason)


@dataclass
class _Account:
    """Parts, and what they may become."""

    rules: Rules
    old: Memory
    seen: Seen
    decisions: list[Decision] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.parts: dict[Kind, dict[str, int]] = {"own": dict(self.old.own), "lent": dict(self.old.lent)}
        self.changed = dict(self.old.changed)
        self.held = {name: by for name, by in self.old.held.items() if self._lasts(name)}
        self.wish = {name: site.wish for name, site in self.seen.sites.items()}

    def _lasts(self, held: str) -> bool:
        """Whether there still is a reason to ask for it; else, should one come, it is said again."""
        kind, _, key = held.partition(" ")
        site = self.seen.sites.get(key)
        return site is not None and (self.seen.run is not None if kind == "own" else bool(site.away))

    def memory(self) -> Memory:
        """What is remembered by now."""
        own, lent = ({key: n for key, n in self.parts[kind].items() if n} for kind in ("own", "lent"))
        update = {"own": own, "lent": lent, "changed": self.changed, "held": self.held}
        return self.old.model_copy(update=update)

    def targets(self) -> dict[str, int]:
        return targets(self.rules, self.memory(), self.wish)

    def grant(self, ask: _Ask) -> None:
        """Give what is allowed of what is asked for, and say what is not."""
        allowed, by = (ask.by, "") if ask.by <= 0 else self._allowed(ask)
        if not by:
            self.held.pop(ask.name, None)
        told = by and self.held.get(ask.name) != by
        reason = ask.reason + (f"; {ask.by - allowed} more held back by {by}" if by else "")
        if by:
            self.held[ask.name] = by
        if allowed or told:
            self._change(ask.kind, ask.key, ask.site, allowed, reason)

    def fit(self) -> None:
        """Take back what the user's wish or the rules leave no room for any more, dearest first."""
        elastic: list[tuple[Kind, str, str]] = [("own", site, site) for site in self.parts["own"]]
        elastic += [("lent", home, self._to(home)) for home in self.parts["lent"]]
        for kind, key, site in sorted(elastic, key=lambda one: -self.rules.sites[one[2]].usd_per_hour):
            if self.parts[kind].get(key, 0) <= 0:
                continue
            excess, by = max((-room, by) for room, by in self._rooms(site, with_leaving=False))
            if excess > 0:
                back = min(excess, self.parts[kind][key])
                self.held[f"{kind} {key}"] = by
                self._change(kind, key, site, -back, f"held back by {by}")

    def _to(self, home: str) -> str:
        burst = self.rules.sites[home].burst
        return burst.to if burst is not None else home

    def _allowed(self, ask: _Ask) -> tuple[int, str]:
        room, by = min(self._rooms(ask.site, with_leaving=False))
        if room >= ask.by:  # for nodes that are just leaving it waits without a word
            room, by = min(self._rooms(ask.site, with_leaving=True))
            by = ""
        return max(0, min(room, ask.by)), by

    def _rooms(self, site: str, *, with_leaving: bool) -> Iterator[tuple[int, str]]:
        """How many more nodes the site may have, and what says so; below zero: it has too many."""
        now, rule, most = self.targets(), self.rules.sites[site], self.rules.max_usd_per_hour
        yield rule.most - now[site], f"the site's most, {rule.most} nodes"
        new = {name: max(0, count - self.seen.sites[name].known) for name, count in now.items()}
        unused = max(0, self.seen.sites[site].known - now[site])
        short = self.seen.free - sum(new.values())
        room = max(short, -new[site]) if new[site] else unused + max(0, short)
        yield room, "the number of partitions"
        if most is not None and rule.usd_per_hour > 0:
            leaving = {name: one.leaving for name, one in self.seen.sites.items() if with_leaving}
            left = most - cost(self.rules, now) - cost(self.rules, leaving)
            count = (left + A_CENT) / rule.usd_per_hour
            yield int(count // 1), f"the budget of ${most:g} an hour"

    def _change(self, kind: Kind, key: str, site: str, by: int, reason: str) -> None:
        before = self.targets()
        self.parts[kind] = self.parts[kind] | {key: self.parts[kind].get(key, 0) + by}
        if by and self.rules.sites[site].autoscale is not None:
            self.changed[key if kind == "own" else f"{LENT}{site}"] = self.seen.time
        after = self.targets()
        usd = cost(self.rules, before), cost(self.rules, after)
        self.decisions.append(Decision(site, before[site], after[site], reason, *usd))
