"""What policies would have done with what was recorded: the same decisions, at the speed of thought."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from ..errors import ConfigError
from ..telemetry.events import FILE, Event, read_events
from .config import FederationConfig
from .elastic import decide
from .elastic_seen import Decision, Memory, Rules, Seen, SiteSeen, rules_of, targets
from .state import StateDir

EVERY_S = 10.0

Told = tuple[float, Decision]


def decided(state: Path) -> list[Told]:
    """What was decided in the federation of a state folder."""
    path = StateDir(state).elastic / FILE
    return decisions_of(read(path)) if path.exists() else []


def rehearsed(config: FederationConfig, record: Path) -> list[Told]:
    """What the policies of ``config`` would have decided with ``record``; ConfigError where it is none."""
    return list(rehearse(rules_of(config), traces_of(read(record), record)))


def read(path: Path) -> list[Event]:
    """The events that a controller wrote down; ConfigError where that is no such file."""
    try:
        if path.is_file():
            return list(read_events(path))
    except (OSError, ValueError) as error:
        raise _refused(path, str(error)) from error
    raise _refused(path, "there is no such file")


def decisions_of(events: Sequence[Event]) -> list[Told]:
    """What was decided then."""
    fields = Decision.__dataclass_fields__
    return [
        (event["time"], Decision(**{name: event[name] for name in fields}))
        for event in events
        if event.get("event") in ("scaled", "held_back")
    ]


def traces_of(events: Sequence[Event], path: Path) -> list[list[Seen]]:
    """What was seen, by each controller one after the other: nobody looked between them."""
    traces: list[list[Seen]] = [[]]
    try:
        for event in events:
            if event["event"] == "began":
                traces.append([])
            elif event["event"] == "seen":
                traces[-1].append(Seen.model_validate(event["seen"]))
    except (KeyError, TypeError, ValidationError) as error:
        raise _refused(path, str(error)) from error
    found = [trace for trace in traces if trace]
    if not found:
        raise _refused(path, "nothing was seen in it")
    return found


def rehearse(rules: Rules, traces: Sequence[Sequence[Seen]], every_s: float = EVERY_S) -> Iterator[Told]:
    """What would have been decided, and when.

    Nodes that the rehearsal wants and that were not there then are taken to start at once, and to be used as
    the others were; those that it does not want are taken to be gone.

    Raises
    ------
    ConfigError
        Another federation's record: it has other sites.
    """
    for trace in traces:
        others = set(trace[0].sites) ^ set(rules.sites)
        if others:
            raise ConfigError(
                f"the record must be of a federation with the sites {', '.join(rules.sites)}, "
                f"got one with {', '.join(trace[0].sites)}"
            )
    memory = Memory()
    for trace in traces:
        memory = memory.model_copy(update={"busy": {}})
        for seen, end in zip(trace, [*(one.time for one in trace[1:]), trace[-1].time], strict=True):
            now = seen.time
            while now < max(end, seen.time + 1e-6):
                memory, decisions = decide(rules, memory, _as_if(seen, now, rules, memory))
                yield from ((now, one) for one in decisions)
                now += every_s


def _as_if(seen: Seen, now: float, rules: Rules, memory: Memory) -> Seen:
    """``seen`` at another time, had the sites the numbers of nodes that the rehearsal gave them."""
    shall = targets(rules, memory, {name: site.wish for name, site in seen.sites.items()})
    sites = {name: _resized(site, shall[name], seen.run is not None) for name, site in seen.sites.items()}
    new = sum(site.known - seen.sites[name].known for name, site in sites.items())
    return seen.model_copy(update={"time": now, "sites": sites, "free": max(0, seen.free - new)})


def _resized(site: SiteSeen, shall: int, running: bool) -> SiteSeen:
    online, away, used = list(site.online), list(site.away), site.used
    missing = shall - len(online) - len(away)
    if missing > 0:
        all_used = used == len(online) and not away if online else running
        online += [0.0] * missing
        used += missing if all_used else 0
    while len(online) + len(away) > shall:
        (away or online).pop()
    update: Mapping[str, object] = {
        "target": shall,
        "online": tuple(online),
        "away": tuple(away),
        "used": min(used, len(online)),
        "known": max(site.known, shall),
    }
    return site.model_copy(update=dict(update))


def _refused(path: Path, why: str) -> ConfigError:
    words = " ".join(why.split())[:200]
    return ConfigError(f"{path}: must be what a controller wrote down, elastic/events.jsonl ({words})")
