"""What became of a run's training, counted from its events: whether it came to anything, and why not."""

from ...errors import RunError
from ...telemetry.events import Event

REFUSED, FAILED, LOST = "reply_refused", "reply_failed", "node_lost"
WORDS = {REFUSED: "replies were refused", FAILED: "replies were errors", LOST: "messages were lost"}


class Tally:
    """Counts; it listens to the run's events."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._first: dict[str, str] = {}
        self._skipped = ""
        self._cut = self._wanted = False

    def add(self, event: Event) -> None:
        """Take one event into account."""
        kind = event["event"]
        if kind == "round_started":
            self._cut = False
        elif kind == "cut":
            self._cut = True
        elif kind == "sent":
            self._wanted |= event["kind"] == "train"
        elif kind == "round_skipped":
            self._skipped = event["reason"]
            # it found no nodes; where nothing was sent although it had some, nothing was to be trained
            self._wanted |= not self._cut
        elif kind in WORDS and event.get("kind", "train") == "train":
            self._counts[kind] = self._counts.get(kind, 0) + 1
            self._first.setdefault(kind, f"{event['node']}: {event['reason']}")

    def judge(self, version: int) -> None:
        """Refuse to call a run finished that was to train and has still model ``version`` 0: RunError."""
        if version or not self._wanted:
            return
        told = [
            f"{self._counts[k]} {WORDS[k]}, the first of {self._first[k]}" for k in WORDS if k in self._counts
        ]
        words = "; ".join(told) or self._skipped
        raise RunError(f"no round aggregated anything, the model is untrained: {words}")
