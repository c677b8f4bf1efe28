"""What the server knows of its nodes, by their stable names: how long they take, and whom to leave alone."""

from dataclasses import dataclass

FIRST_REST_S, LONGEST_REST_S = 60.0, 3600.0
SMOOTHING = 0.5


@dataclass
class NodeHistory:
    """One node's past."""

    duration_s: float | None = None
    """Smoothed seconds from a message's dispatch to its reply; None before the first."""
    rest_s: float = 0.0
    """How long a suspect rests before its next probe; 0 = not suspect."""
    rest_until: float = 0.0


class Ledger:
    """Histories of all nodes."""

    def __init__(self) -> None:
        self._nodes: dict[str, NodeHistory] = {}

    def of(self, node: str) -> NodeHistory:
        """A node's history, empty at first."""
        return self._nodes.setdefault(node, NodeHistory())

    def answered(self, node: str, duration_s: float) -> None:
        """It answered, well or not: no longer suspect."""
        past = self.of(node)
        old = past.duration_s
        past.duration_s = duration_s if old is None else (1 - SMOOTHING) * old + SMOOTHING * duration_s
        past.rest_s = past.rest_until = 0.0

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
