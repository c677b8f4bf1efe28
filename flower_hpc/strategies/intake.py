"""What happens to a reply: refused, discarded, or folded into the next model; and which model that is.

Called by the collector, in its thread and under its lock.
"""

from collections.abc import Collection
from dataclasses import dataclass

from flwr.app import ArrayRecord, Message

from ..errors import ReplyError
from ..records import Weights, to_weights
from ..telemetry import EventLog
from .collect import Flight
from .join import Averaged, Batch, Gathered
from .messages import release
from .options import Settings
from .replies import Reply, read_reply


@dataclass(frozen=True)
class Model:
    """One version of the global model: as it travels, and as views of the same bytes."""

    version: int
    record: ArrayRecord
    weights: Weights

    @classmethod
    def of(cls, record: ArrayRecord, version: int = 0) -> "Model":
        """A record as a model."""
        return cls(version, record, to_weights(record))


class Intake:
    """Judges replies and joins the good ones.

    Attributes
    ----------
    model : Model
        The current one.
    fresh : int
        Replies accepted since :meth:`open`.
    joined, late : int
        Updates that the next model has so far, and how many of them are late.
    """

    def __init__(self, settings: Settings, record: ArrayRecord, events: EventLog) -> None:
        self._settings, self._events = settings, events
        self.model = Model.of(record)
        self.round, self._open = 0, False
        self._bases: dict[int, Weights] = {}
        self._held: list[tuple[Flight, Message, float, int]] | None = None
        self.fresh = 0
        self._new_batch()

    def open(self, number: int) -> None:
        """Replies to round ``number`` are fresh from now on."""
        self.round, self._open, self.fresh = number, True, 0

    def close(self) -> None:
        """The round is cut: what comes now is late."""
        self._open = False

    def short(self) -> str | None:
        """Why there is nothing to aggregate yet, or None."""
        if self.joined < self._settings.min_replies:
            return f"{self.joined} usable replies, needs {self._settings.min_replies}"
        return self._batch.short()

    def drop(self) -> None:
        """Forget the replies of a skipped round, if an inner strategy was to join them.

        It joins one reply a node; a mean can keep what came for the next round.
        """
        if self._settings.inner is not None:
            self._new_batch()

    def take(self, flight: Flight, message: Message, duration_s: float, size: int) -> None:
        """Judge one train reply."""
        if self._held is not None:  # a model is being computed: what this counts against is not yet known
            self._held.append((flight, message, duration_s, size))
            return
        content = message.content
        self._judge(flight, message, duration_s, size)
        release(content)  # whatever was kept of it is elsewhere by now

    def _judge(self, flight: Flight, message: Message, duration_s: float, size: int) -> None:
        fresh = self._open and flight.round == self.round
        facts = {"round": self.round, "kind": "train", "node": flight.node.name, "bytes_up": size}
        try:
            reply = self._read(message, flight.version)
        except ReplyError as error:
            self._events.write("reply_refused", **facts, reason=str(error))
            return
        tau = self.model.version - flight.version
        worth = self._settings.worth.weight(tau)
        facts |= {"duration_s": round(duration_s, 3), "examples": reply.weight}
        if fresh:
            self.fresh += 1
            self._events.write("reply_accepted", **facts)
        else:
            age = {"asked_round": flight.round, "staleness": tau, "weight": round(worth, 6)}
            self._events.write("reply_late", **facts, **age)
        if worth > 0:
            self.joined += 1
            self.late += not fresh
            base = self._bases[flight.version] if tau else None
            self._batch.add(message, reply, reply.weight * worth, self.model.weights, base)

    def begin_aggregate(self) -> Batch:
        """Take the updates so far out, and hold replies until :meth:`publish` or :meth:`give_up`."""
        batch, self._held = self._batch, []
        self._new_batch()
        return batch

    def publish(self, record: ArrayRecord, in_flight: Collection[int]) -> None:
        """Make ``record`` the current model; keep the old ones that ``in_flight`` versions still need."""
        old = self.model
        self._bases[old.version] = old.weights
        self.model = Model.of(record, old.version + 1)
        worth = self._settings.worth.weight
        # a held reply has landed, but is judged only now
        needed = {*in_flight, *(flight.version for flight, *_ in self._held or [])}
        self._bases = {
            version: weights
            for version, weights in self._bases.items()
            if version in needed and worth(self.model.version - version) > 0
        }
        self.give_up()

    def give_up(self) -> None:
        """The model stays as it is; judge what was held."""
        held, self._held = self._held or [], None
        for flight, message, duration_s, size in held:
            self.take(flight, message, duration_s, size)

    def _new_batch(self) -> None:
        inner, key = self._settings.inner, self._settings.weighting.key
        self._batch: Batch = Averaged(key) if inner is None else Gathered(inner)
        self.joined = self.late = 0

    def _read(self, message: Message, version: int) -> Reply:
        try:
            return read_reply(message, self.model.weights, version, self._settings.weighting)
        except ReplyError:
            raise
        except Exception as error:  # hostile bytes may break any parser: that is the node's fault
            raise ReplyError(f"it cannot be read: {type(error).__name__}: {error}") from error
