"""What happens to a reply: refused, discarded, or folded into the next model; and which model that is.

Called by the collector, in its thread and under its lock.
"""

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from flwr.app import ArrayRecord, Message

from ...errors import ReplyError
from ...protocol import QUEUE_S, ticket_of
from ...records import Weights, num_bytes
from ...telemetry import EventLog
from ..history import number_of
from ..ledger import Usual
from ..options import LEAST_INCLUSION, Settings
from ..work import Work
from .acks import Acks
from .collect import Flight
from .control import Control
from .downlink import Downlink
from .join import Averaged, Batch, Gathered, Part
from .log import LOG
from .messages import bytes_beside, release
from .pots import Model, Pot
from .reading import Reader
from .replies import Reply, queue_s
from .state import RunState
from .submodels import Submodels


class Intake:
    """Judges replies and joins the good ones.

    Attributes
    ----------
    model : Model
        The current one.
    bases : dict of int to Weights
        Older versions, as nodes got them, from which updates are still to come.
    acks : Acks
        What nodes are told of their updates.
    downlink : Downlink
        How the model travels.
    submodels : Submodels or None
        Which part of it; None: all.
    control : Control or None
        SCAFFOLD's control variate.
    fresh : int
        Replies accepted since :meth:`open`.
    full : callable, optional
        Asked after each reply: from the first True on replies are held for the model after the next.
    """

    def __init__(self, settings: Settings, record: ArrayRecord, events: EventLog, state: RunState) -> None:
        self._settings, self._events, self._state = settings, events, state
        self.model = Model.of(record)
        self.control = Control.of(self.model.weights) if settings.control else None
        self.acks, self.downlink = Acks(), Downlink(settings.compression)
        self._joining = self._new_pot()
        self.submodels: Submodels | None = None
        if settings.dropout is not None:
            how, weights = settings.compression, self.model.weights
            self.submodels = Submodels(settings.dropout, how, weights, settings.run_name)
        self._reader = Reader(settings, self.submodels)
        self.round, self._open = 0, False
        self.bases: dict[int, Weights] = {}
        self._held: list[tuple[Flight, Message, float, int]] | None = None
        self._usual = Usual()
        self.fresh = 0
        self.last_refusal = ""
        self.full: Callable[[], bool] | None = None
        self._pot, self._next = self._new_pot(), self._new_pot()

    @property
    def work(self) -> Work:
        """The policy that is told of each reply."""
        return self._settings.work

    @property
    def joined(self) -> int:
        """Updates that the next model has so far."""
        return self._pot.joined

    @property
    def counted(self) -> int:
        """How many of them weigh anything."""
        return self._pot.counted

    @property
    def late(self) -> int:
        """How many of them are late."""
        return self._pot.late

    def open(self, number: int) -> None:
        """Replies to round ``number`` are fresh from now on."""
        self.round, self._open, self.fresh = number, True, 0
        ledger = self._state.ledger
        self._usual = ledger.usual(self._settings.weighting.watches)

    def close(self) -> None:
        """The round is cut: what comes now is late."""
        self._open, self.full = False, None
        if not self._pot.joined:  # nobody was admitted: those that were not are all there is
            self._pot, self._next = self._next, self._pot

    def short(self) -> str | None:
        """Why there is nothing to aggregate yet, or None."""
        if self.joined < self._settings.min_replies:
            return f"{self.joined} usable replies, needs {self._settings.min_replies}"
        return self._pot.batch.short()

    def drop(self) -> None:
        """Forget the replies of a skipped round, if an inner strategy was to join them.

        It joins one reply a node; a mean can keep what came for the next round.
        """
        if self._settings.inner is not None:
            self.acks.lose(self._pot.tickets)
            self._pot = self._new_pot()
        self.give_up()

    def take(self, flight: Flight, message: Message, duration_s: float, size: int) -> None:
        """Judge one train reply."""
        if self._held is not None:  # a model is to be computed: what this counts against is not yet known
            self._held.append((flight, message, duration_s, size))
            return
        content = message.content
        self._judge(flight, message, duration_s, size)
        release(content)  # whatever was kept of it is elsewhere by now
        if self.full is not None and self.full():
            self._held = []

    def _judge(self, flight: Flight, message: Message, duration_s: float, size: int) -> None:
        name, work, seen = flight.node.name, self._settings.work, self._state.situation()
        facts: dict[str, Any] = {"round": self.round, "kind": "train", "node": name, "bytes_up": size}
        facts["bytes_up_full"] = num_bytes(self.model.record) + bytes_beside(message)
        try:
            base = self._base(flight.version)
            reply = self._reader.read(message, flight, self.model.weights, base, self._usual)
            change = self.control.read(message) if self.control else None
        except ReplyError as error:
            self._events.write("reply_refused", **facts, reason=str(error))
            LOG.warning("refused the reply of node %s: %s", name, error)
            self.last_refusal = f"{name}: refused, {error}"
            self._state.ledger.refused(name, self.round)
            work.lost(name, seen)
            return
        ticket = ticket_of(message)
        given_back = bool(ticket) and not self.acks.came(name, ticket)  # the node counts it as lost already
        fresh = self._open and flight.round == self.round and not given_back
        admitted = not fresh or work.admits(name, queue_s(reply.metrics, duration_s), seen)
        tau = self.model.version - flight.version
        worth = 0.0 if given_back else self._settings.worth.weight(tau + (not admitted))
        facts |= {"duration_s": round(duration_s, 3), "examples": reply.weight}
        if (waited := number_of(reply.metrics.get(QUEUE_S))) is not None:
            facts["queue_s"] = round(waited, 3)
        if fresh:
            self.fresh += 1
            self._events.write("reply_accepted", **facts, **({} if admitted else {"admitted": False}))
        else:
            age = {"asked_round": flight.round, "staleness": tau, "weight": round(worth, 6)}
            self._events.write("reply_late", **facts, **age, **({"given_back": True} if given_back else {}))
        if worth > 0:
            part = Part(reply.weight / self._inclusion(name), worth, self._reader.steps(reply))
            norm = self._add(flight, message, reply, part, fresh=fresh, admitted=admitted)
            if norm is not None:
                self._state.ledger.of(name).update_norm = math.sqrt(norm)
        if self.control and change is not None and (worth * reply.weight > 0 or not ticket):
            # where an update with a ticket is dropped, its node takes its own change back
            self.control.add(change)
        self._remember(flight, reply, duration_s, worth, late=not fresh)
        work.answered(name, seen)

    def _add(
        self, flight: Flight, message: Message, reply: Reply, part: Part, *, fresh: bool, admitted: bool
    ) -> float | None:
        pot, base = self._pot if admitted else self._next, None
        if flight.version != self.model.version:
            base = self.bases[flight.version]
        elif not admitted:
            base = self.model.sent  # it will be joined to the next version
        if part.weight > 0:  # what weighs nothing is not part of a model
            pot.tickets.append((flight.node.name, ticket_of(message)))
            self.acks.wait(pot.tickets[-1:])
        pot.joined, pot.late = pot.joined + 1, pot.late + (not fresh or not admitted)
        pot.counted += part.weight > 0
        return pot.batch.add(message, reply, part, self.model.sent, base)

    def _remember(self, flight: Flight, reply: Reply, duration_s: float, worth: float, *, late: bool) -> None:
        ledger, name = self._state.ledger, flight.node.name
        ledger.completed(name, self.round, worth, late)
        past = ledger.of(name)
        past.learn(reply.metrics, duration_s, flight.limited, flight.steps)
        past.last_empty = past.last_empty if reply.weight > 0 else self.round
        watched = {
            key: value
            for key in self._settings.weighting.watches
            if (value := number_of(reply.metrics.get(key))) is not None
        }
        past.watched = watched
        if self._usual.examples is None and past.examples:  # the very first round
            self._usual = Usual(past.examples, watched)

    def _base(self, version: int) -> Weights | None:
        return self.model.sent if version == self.model.version else self.bases.get(version)

    def _inclusion(self, node: str) -> float:
        if self._settings.inclusion is None:
            return 1.0
        return max(LEAST_INCLUSION, self._state.ledger.of(node).inclusion)

    def begin_aggregate(self) -> Batch:
        """Take the updates so far out, and hold replies until :meth:`publish` or :meth:`give_up`."""
        self._joining, self._held = self._pot, self._held or []
        self._pot, self._next = self._next, self._new_pot()
        return self._joining.batch

    def publish(self, record: ArrayRecord, in_flight: Collection[int]) -> None:
        """Make ``record`` the current model; keep the old ones that ``in_flight`` versions still need."""
        old, version = self.model, self.model.version + 1
        self.bases[old.version] = old.sent
        self.model = Model.of(record, version, self.downlink.follow(old, record, version))
        self.acks.receive(self._joining.tickets)
        self._joining = self._new_pot()
        if self.control:
            self.control.step(self._state.online)
        worth = self._settings.worth.weight
        # a held reply has landed, but is judged only now
        needed = {*in_flight, *(flight.version for flight, *_ in self._held or [])}
        self.bases = {
            version: weights
            for version, weights in self.bases.items()
            if version in needed and worth(self.model.version - version) > 0
        }
        self.give_up()

    def give_up(self) -> None:
        """The model stays as it is; judge what was held."""
        self.acks.lose(self._joining.tickets)  # none, if there is a new model
        self._joining = self._new_pot()
        held, self._held = self._held or [], None
        for flight, message, duration_s, size in held:
            self.take(flight, message, duration_s, size)

    def to_tree(self) -> dict[str, Any]:
        """Model, older versions and what has come for the next one, for a checkpoint."""
        pots = [
            {
                "counts": (pot.joined, pot.late, pot.counted),
                "tickets": list(pot.tickets),
                "batch": pot.batch.to_tree(),
            }
            for pot in (self._pot, self._next)
            if isinstance(pot.batch, Averaged)
        ]
        control = self.control.to_tree() if self.control else None
        model = {"record": self.model.record, "version": self.model.version, "sent": None}
        if self._settings.compression.delta:
            model["sent"] = self.model.sent
        found = {"model": model, "bases": dict(self.bases), "pots": pots, "control": control}
        return {**found, "acks": self.acks.to_tree()}

    def restore(self, tree: Mapping[str, Any]) -> None:
        """Take over what :meth:`to_tree` gave."""
        saved = tree["model"]
        self.model = Model.of(saved["record"], saved["version"], saved["sent"])
        self.bases = tree["bases"]
        self.acks.restore(tree["acks"])
        self.downlink.restart()
        for pot, saved in zip((self._pot, self._next), tree["pots"], strict=False):
            if isinstance(pot.batch, Averaged):
                pot.joined, pot.late, pot.counted = saved["counts"]
                pot.tickets = [(node, ticket) for node, ticket in saved["tickets"]]
                pot.batch.restore(saved["batch"])
        if self.control and tree["control"] is not None:
            self.control.restore(tree["control"])

    def _new_pot(self) -> Pot:
        settings = self._settings
        if settings.inner is not None:
            return Pot(Gathered(settings.inner))
        models = settings.mix == "models"
        return Pot(Averaged(settings.weighting.key, settings.server_lr, settings.damped, models))
