"""What becomes of each message: a reply, an error, nothing; written down, and its node's history kept."""

from collections.abc import Mapping
from pathlib import Path

from flwr.app import ConfigRecord, Message, MessageType, MetricRecord
from flwr.common.constant import ErrorCode
from flwr.proto.node_pb2 import NodeInfo

from ...protocol import PROFILE, PROFILE_QUERY, RECEIVED_WALL, REPLIED_WALL, mark_of
from ...records import records_of
from ...telemetry import EventLog
from .collect import Flight, Online
from .facts import FactsReader
from .intake import Intake
from .log import LOG
from .messages import message_bytes
from .state import RunState

LOST = (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE)
LONGEST_NAME = 128


class Outcomes:
    """What the collector calls; train replies go on to the intake.

    Attributes
    ----------
    evaluations : list of Message
        Replies to the current round's evaluate messages.
    last_failure : str
        The last error that a node reported, for the message that ends a run.
    """

    def __init__(self, intake: Intake, state: RunState, events: EventLog, facts: Path | None) -> None:
        self._intake, self._state, self._events = intake, state, events
        self._names: dict[int, str] = {}
        self._work = intake.work
        self._away: dict[str, tuple[str, str]] = {}
        self.facts = FactsReader(facts)
        self._begun = state.clock.wall()
        self.evaluations: list[Message] = []
        self.last_failure = ""

    def name_of(self, info: NodeInfo) -> str:
        """The stable name: the SuperLink's, else what the node's replies say, else its id."""
        return info.name or self._names.get(info.node_id) or str(info.node_id)

    def away(self, online: Mapping[int, Online]) -> dict[int, str]:
        """Nodes of which their scheduler says that they are gone, and why, until they are back."""
        activated = {node.name: node.activated for node in online.values()}
        for fact in self.facts.read():
            if fact.gone:
                self._away[fact.name] = (activated.get(fact.name, ""), f"{fact.state}: {fact.reason}")
            elif fact.up:
                self._away.pop(fact.name, None)
            elif fact.waits and fact.time >= self._begun:  # the file begins long before the run
                self._events.write("node_queued", **fact.waiting)
            leaves = fact.leaves and fact.time >= self._begun
            if leaves:
                self._events.write("node_leaving", node=fact.name, reason=fact.reason)
            self._state.ledger.of(fact.name).leaves = leaves
            self._state.ledger.of(fact.name).starts_at = fact.starts_at if fact.waits else None
        for name, (then, _) in list(self._away.items()):
            if activated.get(name, then) != then:  # it has signed on again since
                del self._away[name]
        return {i: self._away[n.name][1] for i, n in online.items() if n.name in self._away}

    def replied(self, flight: Flight, reply: Message, duration_s: float) -> None:
        """A reply came, with content or an error."""
        if reply.has_error():
            self._failed(flight, reply.error.code, (reply.error.reason or "").strip())
            return
        self._learn_name(flight, mark_of(reply).name)
        self._intake.downlink.learn(flight.node, mark_of(reply))
        self._learn_profile(flight, reply, duration_s)
        if flight.kind == PROFILE_QUERY:
            return
        trained = flight.kind == MessageType.TRAIN
        self._state.ledger.answered(flight.node.name, duration_s if trained else None)
        size, seconds = message_bytes(reply), round(duration_s, 3)
        if trained:
            self._intake.take(flight, reply, duration_s, size)
            return
        number = self._intake.round
        facts = {"round": number, "kind": flight.kind, "node": flight.node.name, "bytes_up": size}
        if (count := len(records_of(reply.content, MetricRecord))) != 1:
            reason = f"it has {count} MetricRecords, expected 1"
            self._events.write("reply_refused", **facts, reason=reason)
        elif flight.round == number:
            self.evaluations.append(reply)
            self._events.write("reply_accepted", **facts, duration_s=seconds, examples=None)

    def lost(self, flight: Flight, reason: str, suspect: bool = False) -> None:
        """No reply will come, or none that can be counted on."""
        name = flight.node.name
        self._intake.downlink.forget(name)
        if suspect:
            self._state.ledger.lost(name, self._state.clock.wall())
        if flight.missed:  # it was charged when it went
            return
        self._charge(flight)
        self._events.write("node_lost", round=self._intake.round, node=name, reason=reason)
        LOG.warning("node %s is lost: %s", name, reason)

    def _failed(self, flight: Flight, code: int, reason: str) -> None:
        name, reason = flight.node.name, reason or f"error {code}"
        self._intake.downlink.forget(name)
        if flight.kind == PROFILE_QUERY and code not in LOST:
            return  # its app answers no such query: it is judged by its history alone
        self.last_failure = f"{name}: {reason}"
        if code in LOST:
            self.lost(flight, reason, suspect=not flight.orphaned)
            return
        self._charge(flight)
        if code != ErrorCode.NODE_UNAVAILABLE:
            self._state.ledger.answered(name)  # how soon it fails says nothing of how long it works
        facts = {"round": self._intake.round, "kind": flight.kind, "node": name}
        self._events.write("reply_failed", **facts, reason=reason, code=code)
        LOG.warning("node %s failed: %s", name, reason)

    def _charge(self, flight: Flight) -> None:
        # the flight's own node: a dead node's error message names node 1 as its sender
        if flight.kind == MessageType.TRAIN:
            self._state.ledger.failed(flight.node.name, self._intake.round)
            self._work.lost(flight.node.name, self._state.situation())

    def _learn_name(self, flight: Flight, name: str) -> None:
        # where the grid names its nodes it is believed; elsewhere a node may not take another's name
        unnamed = flight.node.name == str(flight.node.node_id)
        if unnamed and 0 < len(name) <= LONGEST_NAME and name.isprintable():
            holder = self._names.setdefault(flight.node.node_id, name)
            if list(self._names.values()).count(holder) > 1:
                del self._names[flight.node.node_id]

    def _learn_profile(self, flight: Flight, reply: Message, duration_s: float) -> None:
        record = reply.content.get(PROFILE)
        if not isinstance(record, ConfigRecord):
            return
        ledger, name, found = self._state.ledger, flight.node.name, dict(record)
        received, replied = found.pop(RECEIVED_WALL, None), found.pop(REPLIED_WALL, None)
        ledger.learn_profile(name, found)
        if isinstance(received, float) and isinstance(replied, float) and not self._state.clock.virtual:
            up = message_bytes(reply)
            ledger.learn_link(name, "down_mb_s", received - flight.sent_wall, flight.bytes_down)
            ledger.learn_link(name, "up_mb_s", self._state.clock.wall() - replied, up)
            if flight.bytes_down == up == 0:
                trip = max(0.0, duration_s - max(0.0, replied - received))
                ledger.of(name).profile["round_trip_s"] = trip
