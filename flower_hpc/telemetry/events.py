"""``events.jsonl``: one line an event, written here and nowhere else.

Every line has ``event`` and ``time`` (seconds since the epoch; virtual seconds in a rehearsal). Beside them:

=================  ====================================================================================
event              fields
=================  ====================================================================================
run_started        run, strategy, bytes_model
run_resumed        round and version of the checkpoint (0: none, the run starts anew), in_flight (nodes
                   still awaited), lost (nodes whose messages went with the old server), damaged
                   (checkpoints that were passed over)
round_started      round, online, busy
sent               round, kind (train, evaluate), node, bytes_down, bytes_down_full, version
reply_accepted     round, kind, node, bytes_up, bytes_up_full, duration_s, examples; queue_s: seconds in a
                   batch queue among them, where the node tells; admitted: false where its queue was too
                   long for this model (FedQueue), so that it joins the next
reply_late         round, asked_round, node, bytes_up, bytes_up_full, duration_s, staleness, weight (0:
                   discarded); queue_s, as above; given_back: true where its node counts it as lost and
                   will send it again
reply_refused      round, kind, node, bytes_up, bytes_up_full, reason
reply_failed       round, kind, node, reason, code (Flower's error code)
node_lost          round, node, reason
node_leaving       node, reason: its host will be taken away within minutes; it gets nothing new
node_queued        node, reason, starts_at (seconds since the epoch, or null): its job waits in a queue
cut                round, kind, reason, due_s, waiting (nodes that had not answered)
aggregated         round, version, replies, late
round_skipped      round, reason
evaluated          round, where (server, nodes), metrics
round_finished     round, seconds
run_finished       seconds, in_flight; run_failed: error (``interrupted by SIGTERM`` for a signal), exit_code
=================  ====================================================================================

What a federation with autoscale or burst decides is written in the same way; see ``federation/scaler.py``.

Bytes are those of the arrays as they travel; framing and TLS are not counted. ``..._full`` is what a full,
exact model takes.
"""

import json
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ..clock import WALL, Clock

Event = dict[str, Any]
FILE = "events.jsonl"


class EventLog:
    """The one writer of a run's events.

    Parameters
    ----------
    folder : Path, optional
        The run's folder, made if need be; None writes no file.
    clock : Clock
        Where ``time`` comes from; default the wall clock.
    listener : callable, optional
        Called with every event, in the writer's thread.
    """

    def __init__(
        self,
        folder: Path | None = None,
        clock: Clock = WALL,
        listener: Callable[[Event], None] | None = None,
    ) -> None:
        self.folder, self._clock, self._listener = folder, clock, listener
        self.path = None if folder is None else folder / FILE
        """Where the lines go, if anywhere."""
        self._lock = threading.Lock()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def write(self, event: str, **fields: Any) -> None:
        """Append one event; NaN and infinities become null, so that every line is JSON."""
        self.write_all(event, [fields])

    def write_all(self, event: str, each: Iterable[Event]) -> None:
        """Append several of a kind, at once: fields of each."""
        lines = [{"event": event, "time": round(self._clock.wall(), 6)} | fields for fields in each]
        with self._lock:
            if self.path is not None:
                text = "".join(json.dumps(finite(line), allow_nan=False) + "\n" for line in lines)
                # opened anew: an event survives the process, and a rotated file is followed
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(text)
            if self._listener is not None:
                for line in lines:
                    self._listener(line)


def finite(value: Any) -> Any:
    """``value`` with NaN and infinities replaced by None, at any depth."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return value


def read_events(path: Path) -> Iterator[Event]:
    """Every whole line of an events file; a last line that is still being written is left out."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


def follow_events(
    path: Path, finished: Callable[[], bool], poll_s: float = 0.2, position: int = 0
) -> Iterator[Event]:
    """Yield events from byte ``position`` on as they are written, until ``finished()`` and all are read."""
    last = False
    while True:
        if path.exists():
            with path.open(encoding="utf-8") as file:
                file.seek(position)
                while (line := file.readline()).endswith("\n"):
                    position = file.tell()
                    yield json.loads(line)
        if last:
            return
        last = finished()  # one more read after the end: nothing written before it is missed
        if not last:
            time.sleep(poll_s)
