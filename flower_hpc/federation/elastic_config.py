"""How many nodes a site may have, and when: autoscale, burst, prices.

::

    max_usd_per_hour: 20           # of the whole federation: what runs and what is asked for
    sites:
      hpc:
        launcher: slurm
        nodes: 4
        burst: {to: cloud, after_queue_minutes: 20}   # nodes away for so long are replaced there
      cloud:
        nodes: 0                   # what `scale` sets; autoscale and burst add to it and take from it
        usd_per_hour: 0.526        # of one node
        autoscale: {min: 0, max: 8, idle_minutes: 10}
"""

from collections.abc import Mapping
from typing import Annotated, Any, Protocol, Self

from pydantic import BeforeValidator, Field, model_validator

from .fields import MOST_NODES, Name, Strict


def check_amount(value: Any) -> Any:
    """A number that is one, and not too large for a calendar or a purse."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e6:
        raise ValueError("a number from 0 to 1000000")
    return value


Amount = Annotated[float, BeforeValidator(check_amount), Field(strict=False)]


class Autoscale(Strict):
    """Grow while a run uses every node, shrink when none is used.

    Parameters
    ----------
    min, max : int
        The fewest and the most nodes; ``nodes`` lies between. Default of ``min`` 0.
    idle_minutes : float
        A site none of whose nodes was used for so long goes down to ``min``. Default 10.
    """

    min: int = Field(default=0, ge=0, le=MOST_NODES)
    max: int = Field(ge=1, le=MOST_NODES)
    idle_minutes: Amount = 10.0

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError("a mapping whose min is at most its max")
        return self


class Burst(Strict):
    """Replace nodes that are away by as many at another site.

    Parameters
    ----------
    to : str
        That site.
    after_queue_minutes : float
        How long a node is waited for: in a queue, or because it was taken away.
    max : int, optional
        The most nodes that are replaced. Default: all.
    back_after_minutes : float
        How long a node must be online again before its replacement goes. Default 2.
    idle_minutes : float, optional
        Without a run for so long nothing is replaced. Default: runs or no runs.
    """

    to: Name
    after_queue_minutes: Amount
    max: int | None = Field(default=None, ge=1, le=MOST_NODES)
    back_after_minutes: Amount = 2.0
    idle_minutes: Amount | None = None


class Sized(Protocol):
    """What of a site matters here."""

    @property
    def nodes(self) -> int: ...
    @property
    def autoscale(self) -> Autoscale | None: ...
    @property
    def burst(self) -> Burst | None: ...
    @property
    def usd_per_hour(self) -> float: ...


def check_sites(sites: Mapping[str, Sized], max_usd_per_hour: float | None) -> None:
    """Refuse what cannot be meant: ValueError with the path, the value and what is allowed."""
    for name, site in sites.items():
        _check_burst(name, sites)
        _check_nodes(name, sites)
        if site.autoscale is not None:
            check_count(name, site, site.nodes)
    if not sum(site.nodes for site in sites.values()):
        raise ValueError("sites: got 0 nodes in all, must be at least 1")
    check_budget(sites, {name: site.nodes for name, site in sites.items()}, max_usd_per_hour)


def check_count(name: str, site: Sized, nodes: int) -> None:
    """Refuse a number of nodes that autoscale excludes."""
    scale = site.autoscale
    if scale is not None and not scale.min <= nodes <= scale.max:
        raise ValueError(
            f"sites.{name}.nodes: got {nodes}, must be from {scale.min} to {scale.max}, as its autoscale says"
        )


def check_budget(sites: Mapping[str, Sized], counts: Mapping[str, int], most: float | None) -> None:
    """Refuse more nodes than are paid for."""
    cost = sum(sites[name].usd_per_hour * count for name, count in counts.items() if name in sites)
    if most is not None and cost > most + 1e-9:
        raise ValueError(
            f"max_usd_per_hour: got {most:g}, must be at least the {cost:g} that the sites' nodes cost"
        )


def most_of(sites: Mapping[str, Sized]) -> dict[str, int]:
    """How many nodes each site may ever have, by its own rules."""
    return {name: _most(name, sites) for name in sites}


def is_elastic(sites: Mapping[str, Sized]) -> bool:
    """Whether numbers of nodes may change by themselves."""
    return any(site.autoscale is not None or site.burst is not None for site in sites.values())


def _most(name: str, sites: Mapping[str, Sized]) -> int:
    site = sites[name]
    if site.autoscale is not None:
        return site.autoscale.max
    lent = (
        min(home.burst.max or MOST_NODES, _most(key, sites))
        for key, home in sites.items()
        if home.burst is not None and home.burst.to == name
    )
    return min(site.nodes + sum(lent), MOST_NODES)


def _check_nodes(name: str, sites: Mapping[str, Sized]) -> None:
    targets = {site.burst.to for site in sites.values() if site.burst is not None}
    if not sites[name].nodes and sites[name].autoscale is None and name not in targets:
        raise ValueError(
            f"sites.{name}.nodes: got 0, must be an integer from 1 to {MOST_NODES}, "
            "or 0 where it has autoscale or another site bursts to it"
        )


def _check_burst(name: str, sites: Mapping[str, Sized]) -> None:
    path, here = [name], sites[name].burst
    while here is not None:
        others = ", ".join(other for other in sites if other != path[-1]) or "none, there is no other"
        if here.to not in sites or here.to == path[-1]:
            raise ValueError(f"sites.{path[-1]}.burst.to: got {here.to!r}, must be another site: {others}")
        if here.to in path:
            raise ValueError(
                f"sites.{path[-1]}.burst.to: got {here.to!r}, must be a site that does not burst back: "
                f"{' -> '.join([*path, here.to])}"
            )
        path.append(here.to)
        here = sites[here.to].burst
