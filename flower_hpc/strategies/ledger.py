"""What the server knows of its nodes, by their stable names, and what it expects of them.

Resource profile and history are what Ghimire et al. 2025 choose nodes by ("adaptive client selection").
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

from .history import FORGET_ROUND, NodeHistory, Scalar, smooth

FIRST_REST_S, LONGEST_REST_S = 60.0, 3600.0
LEAST_TRANSFER_S = 0.25  # what is faster than a poll cannot be told from it


@dataclass(frozen=True)
class Usual:
    """Means over the nodes, fixed while a round lasts; what nobody has told is missing."""

    examples: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


class Ledger:
    """Histories of all nodes; times are those of one clock, seconds since its epoch.

    Attributes
    ----------
    spread : float or None
        Variance of single updates around their mean over the squared norm of that mean, smoothed.
    losses : list of float
        Mean training loss of the last rounds, oldest first.
    """

    def __init__(self) -> None:
        self._nodes: dict[str, NodeHistory] = {}
        self.spread: float | None = None
        self.losses: list[float] = []

    def of(self, node: str) -> NodeHistory:
        """A node's history, empty at first."""
        past = self._nodes.get(node)
        if past is None:  # one is not made to be thrown away: this is asked ten times a message
            past = self._nodes[node] = NodeHistory()
        return past

    def names(self) -> list[str]:
        """Everybody who was ever seen."""
        return list(self._nodes)

    def new_round(self) -> None:
        """Forget a little."""
        for past in self._nodes.values():
            past.good, past.bad = FORGET_ROUND * past.good, FORGET_ROUND * past.bad

    def selected(self, node: str, number: int) -> None:
        """It was asked to train in round ``number``."""
        past = self.of(node)
        past.selected, past.last_round = past.selected + 1, number

    def answered(self, node: str, duration_s: float | None = None) -> None:
        """It answered, well or not: no longer suspect. ``duration_s`` where it is that of a training."""
        past = self.of(node)
        if duration_s is not None:
            past.took(duration_s)
        past.rest_s = past.rest_until = 0.0

    def completed(self, node: str, number: int, worth: float, late: bool) -> None:
        """A usable train reply, and what it was worth."""
        past = self.of(node)
        past.completed, past.late = past.completed + (not late), past.late + late
        past.outcome(True, worth, number)

    def refused(self, node: str, number: int) -> None:
        """A train reply that could not be used."""
        past = self.of(node)
        past.refused += 1
        past.outcome(False, 0.0, number)

    def failed(self, node: str, number: int) -> None:
        """An error, or no reply at all."""
        past = self.of(node)
        past.failed += 1
        past.outcome(False, 0.0, number)

    def lost(self, node: str, now: float) -> None:
        """A message to it was never answered: neither busy nor idle, so it rests, twice as long each time."""
        past = self.of(node)
        past.rest_s = min(LONGEST_REST_S, max(FIRST_REST_S, 2 * past.rest_s))
        past.rest_until = now + past.rest_s

    def suspect(self, node: str) -> bool:
        """True from a loss until the next answer."""
        return self.of(node).rest_s > 0

    def resting(self, node: str, now: float) -> bool:
        """True while a suspect is not even to be probed."""
        return now < self.of(node).rest_until

    def probed(self, node: str, now: float) -> None:
        """A suspect was asked once; it rests again until it answers."""
        past = self.of(node)
        past.rest_until = now + past.rest_s

    def slowest_s(self) -> float:
        """The longest of the smoothed durations, 0 before the first."""
        return max((n.duration_s for n in self._nodes.values() if n.duration_s is not None), default=0.0)

    def predict_s(self, node: str) -> float | None:
        """Seconds until a node would answer, all of its own work done; None where nothing is known.

        From its history; else from its measured GFLOP/s and those of nodes with a history, plus its round
        trip; else the median of the others.
        """
        if (own := self.of(node).full_s) is not None:
            return own
        others = [past for past in self._nodes.values() if past.full_s is not None]
        if not others:
            return None
        gflops, trip = self._number(node, "gflops"), self._number(node, "round_trip_s") or 0.0
        works = [
            (past.full_s or 0.0) * speed
            for past in others
            if (speed := past.profile.get("gflops")) and isinstance(speed, int | float)
        ]
        if gflops and works:
            return max(trip, median(works) / gflops)
        return median(past.full_s or 0.0 for past in others)

    def facts(self, node: str) -> Mapping[str, Scalar]:
        """What criteria may ask of a node: its profile, its name, its site (a label, else the name's)."""
        return {"name": node, "site": node.rpartition("-")[0]} | self.of(node).profile

    def learn_profile(self, node: str, record: Mapping[str, Any]) -> None:
        """Take in the profile that a node reports."""
        profile = self.of(node).profile
        for key, value in list(record.items())[:64]:
            if isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= 200):
                name = "site" if key == "label.site" else key.replace("-", "_").replace(".", "_")
                profile[name] = value

    def learn_link(self, node: str, key: str, seconds: float, num_bytes: int) -> None:
        """Bandwidth one way (``down_mb_s``, ``up_mb_s``) from how much longer bytes travel than nothing.

        Parameters
        ----------
        seconds : float
            From the sender's clock to the receiver's. The clocks' offset cancels against the empty message's.
        num_bytes : int
            Array bytes; 0 is a message without any, against which the others count.
        """
        profile = self.of(node).profile
        empty = f"{key}.empty_s"
        known = profile.get(empty)
        if num_bytes == 0:
            profile[empty] = seconds if not isinstance(known, float) else min(known, seconds)
        elif isinstance(known, float) and seconds - known > LEAST_TRANSFER_S:
            old = profile.get(key)
            new = num_bytes / 1e6 / (seconds - known)
            profile[key] = smooth(old if isinstance(old, float) else None, new)

    def mean(self, name: str) -> float | None:
        """Mean of a field of the histories over the nodes that have it."""
        values = [v for past in self._nodes.values() if (v := getattr(past, name)) is not None]
        return fmean(values) if values else None

    def usual(self, watches: Iterable[str]) -> Usual:
        """Means over the nodes of the number of examples and of what a weighting watches."""
        examples = [past.examples for past in self._nodes.values() if past.examples]
        found = {
            key: [past.watched[key] for past in self._nodes.values() if key in past.watched]
            for key in watches
        }
        return Usual(
            fmean(examples) if examples else None,
            {key: fmean(values) for key, values in found.items() if values},
        )

    def learn_round(self, squared_norms: Iterable[float], mean_squared_norm: float) -> None:
        """How far the updates of an aggregation were from their mean, and the training loss now."""
        norms = list(squared_norms)
        if norms and mean_squared_norm > 0:
            spread = max(0.0, fmean(norms) - mean_squared_norm) / mean_squared_norm
            self.spread = smooth(self.spread, spread)
        if (loss := self.mean("loss")) is not None:
            self.losses = [*self.losses, loss][-10:]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        nodes = {name: past.to_json() for name, past in self._nodes.items()}
        return {"nodes": nodes, "spread": self.spread, "losses": self.losses}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Take over what :meth:`to_json` wrote."""
        self._nodes = {name: NodeHistory.from_json(past) for name, past in saved["nodes"].items()}
        self.spread, self.losses = saved["spread"], list(saved["losses"])

    def _number(self, node: str, key: str) -> float | None:
        value = self.of(node).profile.get(key)
        return float(value) if isinstance(value, int | float) and value > 0 else None
