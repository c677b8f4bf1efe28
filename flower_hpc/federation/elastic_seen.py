"""What decisions about numbers of nodes are made of: rules, what is seen, remembered, decided."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from .elastic_config import Autoscale, Burst
from .fields import MOST_NODES

if TYPE_CHECKING:
    from .config import FederationConfig


@dataclass(frozen=True)
class Rule:
    """A site's."""

    autoscale: Autoscale | None = None
    burst: Burst | None = None
    usd_per_hour: float = 0.0

    @property
    def most(self) -> int:
        """The most nodes that it may have."""
        return self.autoscale.max if self.autoscale is not None else MOST_NODES


@dataclass(frozen=True)
class Rules:
    """A federation's."""

    sites: Mapping[str, Rule]
    max_usd_per_hour: float | None = None


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SiteSeen(_Model):
    """How a site is."""

    wish: int
    """The nodes that its user asks for."""
    target: int = 0
    """Those that it shall have, when this was seen."""
    online: tuple[float, ...] = ()
    """Since when each node that is online has been so."""
    away: tuple[float, ...] = ()
    """Since when each node that it shall have is not online."""
    leaving: int = 0
    """Nodes that still run, and shall not."""
    used: int = 0
    """Online nodes that work for a run, or did in its last two rounds."""
    known: int = 0
    """Names, and so partitions, that it ever had."""
    why: str = ""
    """What is said of the nodes that are away."""


class Seen(_Model):
    """All that a decision depends on."""

    time: float
    sites: Mapping[str, SiteSeen]
    generation: int = 0
    """Of the user's wish."""
    run: float | None = None
    """Since when the latest run that is going on does so."""
    blind: bool = False
    """Whether a run does not tell which nodes it uses."""
    free: int = MOST_NODES
    """Partitions that no name has."""


class Memory(_Model):
    """What a decision leaves for the next."""

    generation: int = -1
    wish: Mapping[str, int] = {}
    """The user's, by site."""
    own: Mapping[str, int] = {}
    """What autoscale adds to a site's wish."""
    lent: Mapping[str, int] = {}
    """By home: how many nodes replace its own elsewhere."""
    busy: Mapping[str, float] = {}
    """When a site was last of use."""
    changed: Mapping[str, float] = {}
    """When autoscale last changed a site; with ``lent`` before its name, when stand-ins there did."""
    ran: float | None = None
    """When a run was last going on."""
    held: Mapping[str, str] = {}
    """What is held back, and by what: said once."""


@dataclass(frozen=True)
class Decision:
    """A change of a site's nodes; or one that is held back, where ``before`` and ``after`` are the same."""

    site: str
    before: int
    after: int
    reason: str
    usd_before: float = 0.0
    usd_after: float = 0.0


def rules_of(config: "FederationConfig") -> Rules:
    """Those that a federation.yaml sets."""
    sites = {name: Rule(site.autoscale, site.burst, site.usd_per_hour) for name, site in config.sites.items()}
    return Rules(sites, config.max_usd_per_hour)


def targets(rules: Rules, memory: Memory, wish: Mapping[str, int]) -> dict[str, int]:
    """How many nodes each site shall have."""
    found = {site: max(0, count + memory.own.get(site, 0)) for site, count in wish.items()}
    for home, count in memory.lent.items():
        rule = rules.sites.get(home)
        if rule is not None and rule.burst is not None and rule.burst.to in found:
            found[rule.burst.to] += count
    return found


def cost(rules: Rules, counts: Mapping[str, int]) -> float:
    """What so many nodes cost an hour, in dollars."""
    return sum(rules.sites[name].usd_per_hour * n for name, n in counts.items() if name in rules.sites)
