"""What the controller sees of its sites, as decisions about their numbers of nodes need it."""

from collections import Counter
from collections.abc import Mapping

from .activity import Activity
from .config import FederationConfig
from .desired import Desired
from .elastic_seen import Seen, SiteSeen
from .node import Node
from .roster import Roster, names_of, partitions_of, site_of
from .status import NodeState


def bare(config: FederationConfig, desired: Desired, roster: Roster | None, time: float) -> Seen:
    """What is asked for, and which names there are: all that is known before anything is started."""
    roster = roster or Roster(partitions=partitions_of(config))
    known = Counter(site_of(name) for name in roster.members)
    sites = {
        name: SiteSeen(wish=count, known=known[name]) for name, count in wish_of(config, desired).items()
    }
    free = max(0, roster.partitions - len(roster.members))
    return Seen(time=time, sites=sites, generation=desired.generation, free=free)


def wish_of(config: FederationConfig, desired: Desired) -> dict[str, int]:
    """How many nodes the user asks for, by site."""
    return {name: desired.nodes.get(name, 0) for name in config.sites}


def look(
    before: Seen,
    counts: Mapping[str, int],
    nodes: Mapping[str, Node],
    away: dict[str, float],
    activity: Activity,
) -> Seen:
    """``before`` with how its nodes are; ``away``, since when each is not online, is brought up to date."""
    wanted = set(names_of(counts))
    online = {name: node.keeper.since for name, node in nodes.items() if _works(node) and name in wanted}
    for name in set(away) - wanted | set(online):
        away.pop(name, None)
    # what is stopped is not asked for yet: it waits for us
    asked = {name for name, node in nodes.items() if not node.keeper.stopped}
    for name in set(away) - asked:
        del away[name]
    for name in (wanted & asked) - set(online):
        away.setdefault(name, before.time)
    leaving = Counter(node.plan.site for name, node in nodes.items() if name not in wanted)
    sites = {}
    for site, seen in before.sites.items():
        mine = names_of({site: counts.get(site, 0)})
        update = {
            "target": len(mine),
            "online": tuple(sorted(round(online[name], 1) for name in mine if name in online)),
            "away": tuple(
                sorted(round(away.get(name, before.time), 1) for name in mine if name not in online)
            ),
            "leaving": leaving[site],
            "used": sum(_is_used(nodes[name], activity.used) for name in mine if name in online),
            "why": _why([nodes[name] for name in mine if name in nodes and name not in online]),
        }
        sites[site] = seen.model_copy(update=update)
    return before.model_copy(update={"sites": sites, "run": activity.run, "blind": activity.blind})


def _works(node: Node) -> bool:
    return node.keeper.state is NodeState.ONLINE


def _is_used(node: Node, used: set[str]) -> bool:
    # without keys of nodes a run may know a node by its id alone
    return node.plan.name in used or str(node.node_id) in used


def _why(nodes: list[Node]) -> str:
    """The commonest thing that is said of nodes that are away."""
    said = Counter(_words(node) for node in nodes)
    return said.most_common(1)[0][0] if said else ""


def _words(node: Node) -> str:
    keeper = node.keeper
    now = keeper.status.reason if keeper.job is not None else keeper.last_words
    return f"{keeper.state}: {now}"[:200] if now else str(keeper.state)
