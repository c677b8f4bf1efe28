"""How much of the model does each node train? Federated dropout's other half is :mod:`..compression.dropout`.

All the same (Caldas et al. 2018, https://arxiv.org/abs/1812.07210), slow nodes less (HeteroFL, Diao et al.
2021, https://arxiv.org/abs/2010.01264), or as chance decides (FjORD, Horvath et al. 2021,
https://arxiv.org/abs/2102.13451).

A rate goes by the node's time for the full model, ``T``. To train the part ``r`` takes between ``r T`` and
``r**2 T``, the latter where all is multiplication between hidden layers. So of a ``t`` that was measured with
a part, ``T`` is only known to be in ``[t / r, t / r**2]``, and what was known before stays within that: that
a smaller model takes less time is no reason for a larger one. It fades slowly, so that a node which was slow
for a while, as in its first round, is tried with a larger model again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from ..compression.dropout import ORDERS
from ..errors import ConfigError
from .checks import positive
from .history import NodeHistory, number_of, smooth
from .situation import Situation

MEMORY = "dropout"
BYS = ("profile", "random")
SLACK = 1.25  # times scatter: of equal nodes half are slower than the median
FADING = 0.98  # a reply


@dataclass(frozen=True)
class FederatedDropout:
    """A rate for each node: the share of the units of each hidden layer that it trains and sends.

    Parameters
    ----------
    rates : float or sequence of float
        To choose from, each in (0, 1]; default 1, 0.5 and 0.25. One alone is everybody's.
    order : str
        Which units: ``ordered`` (default), the first ones; ``rolling``, a window that moves by one unit a
        round; ``random``, drawn for each round and node.
    by : str
        ``profile`` (default): the largest rate ``r <= M / T``, else the smallest, where ``T`` are the seconds
        that the node needs with the full model and ``M`` their median over the nodes. A rate falls only where
        ``r`` is a quarter above that. Times are the ledger's; a node without any goes by its GFLOP/s, and has
        the largest rate where these are unknown too.
        ``random``: drawn uniformly each time.
    """

    rates: Sequence[float] = (1.0, 0.5, 0.25)
    order: str = "ordered"
    by: str = "profile"

    def __post_init__(self) -> None:
        given: Any = self.rates  # one rate is taken as well
        rates = list(given) if isinstance(given, list | tuple) else [given]
        if not rates:
            raise ConfigError(f"dropout's rates must be a list of at least one rate, got {self.rates!r}")
        for rate in rates:
            positive("each of dropout's rates", rate, most=1.0)
        for what, value, allowed in (("order", self.order, ORDERS), ("by", self.by, BYS)):
            if value not in allowed:
                raise ConfigError(f"dropout's {what} must be one of {', '.join(allowed)}, got {value!r}")
        # specs have lists; equal policies are equal
        object.__setattr__(self, "rates", tuple(sorted({float(r) for r in rates}, reverse=True)))

    @classmethod
    def of(cls, value: object) -> "FederatedDropout | None":
        """From one rate, a list of rates, a policy, or None.

        Raises
        ------
        ConfigError
            None of these.
        """
        if value is None or isinstance(value, cls):
            return value
        return cls(rates=value)  # type: ignore[arg-type]  # checked there

    @property
    def profiles(self) -> bool:
        """Whether nodes are asked for their resources before they train."""
        return self.by == "profile" and len(self.rates) > 1

    def rate(self, nodes: Sequence[str], seen: Situation) -> dict[str, float]:
        """The rate of each of ``nodes``, which are about to be asked."""
        if len(self.rates) == 1:
            return dict.fromkeys(nodes, self.rates[0])
        if self.by == "random":
            return {node: seen.rng.choice(self.rates) for node in nodes}
        kept = seen.keep(MEMORY)
        times = full_times(seen, kept)
        usual = median(times.values()) if times else 0.0
        found = {}
        for node in nodes:
            own = kept.setdefault(node, {})
            own["rate"] = found[node] = self._fit(own.get("rate"), usual, times.get(node))
        return found

    def _fit(self, now: float | None, usual_s: float, time_s: float | None) -> float:
        now = self._most(1.0 if now is None else now)  # a resumed run may have other rates
        if not time_s:
            return self.rates[0] if time_s == 0 else now
        share = usual_s / time_s
        return min(max(now, self._most(share)), self._most(share * SLACK))

    def _most(self, share: float) -> float:
        return next((rate for rate in self.rates if rate <= share), self.rates[-1])


def full_times(seen: Situation, kept: dict[str, Any]) -> dict[str, float]:
    """Seconds of each node with the full model, as far as anything is known of it.

    Parameters
    ----------
    kept : dict
        For each node the ``rate`` that it was last asked with, and what is known of before, which is brought
        up to date.
    """
    times, speeds = {}, {}
    for node in seen.ledger.names():
        past = seen.ledger.of(node)
        if speed := number_of(past.profile.get("gflops")):
            speeds[node] = speed
        if past.full_s is not None:
            times[node] = _full_s(past, past.full_s, kept.setdefault(node, {}))
    return _by_speed(times, speeds) | times


def _full_s(past: NodeHistory, time_s: float, own: dict[str, Any]) -> float:
    if time_s != own.get("time_s"):  # a reply came
        # the ledger's time is a mean of times with several rates; so is this, of the rates
        part = smooth(own.get("part"), own.get("rate", 1.0))
        overhead = min(time_s, past.overhead_s or 0.0)
        least, most = (overhead + (time_s - overhead) / part**law for law in (1, 2))
        full_s = min(max(least, FADING * own.get("full_s", 0.0)), most)
        own.update(time_s=time_s, part=part, full_s=full_s)
    return float(own["full_s"])


def _by_speed(times: Mapping[str, float], speeds: Mapping[str, float]) -> dict[str, float]:
    work = [times[node] * speed for node, speed in speeds.items() if node in times]
    if times and not work:
        return {}
    typical = median(work) if work else 1.0  # without any time all are in the same unknown unit
    return {node: typical / speed for node, speed in speeds.items()}
