"""What becomes of each message: a reply, an error, nothing; written down, and its node's history kept."""

import logging

from flwr.app import Message, MessageType
from flwr.common.constant import ErrorCode
from flwr.proto.node_pb2 import NodeInfo

from ..clock import Clock
from ..protocol import mark_of
from ..telemetry import EventLog
from .collect import Flight
from .intake import Intake
from .ledger import Ledger
from .messages import message_bytes

LOG = logging.getLogger("flwr.hpc")  # below Flower's own logger: `flwr log` shows it
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

    def __init__(self, intake: Intake, ledger: Ledger, events: EventLog, clock: Clock) -> None:
        self._intake, self._ledger, self._events, self._clock = intake, ledger, events, clock
        self._names: dict[int, str] = {}
        self.evaluations: list[Message] = []
        self.last_failure = ""

    def name_of(self, info: NodeInfo) -> str:
        """The stable name: the SuperLink's, else what the node's replies say, else its id."""
        return info.name or self._names.get(info.node_id) or str(info.node_id)

    def replied(self, flight: Flight, reply: Message, duration_s: float) -> None:
        """A reply came, with content or an error."""
        if reply.has_error():
            self._failed(flight, reply.error.code, (reply.error.reason or "").strip(), duration_s)
            return
        self._learn_name(flight, mark_of(reply).name)
        self._ledger.answered(flight.node.name, duration_s)
        size, seconds = message_bytes(reply), round(duration_s, 3)
        if flight.kind == MessageType.TRAIN:
            self._intake.take(flight, reply, duration_s, size)
            return
        number = self._intake.round
        facts = {"round": number, "kind": flight.kind, "node": flight.node.name, "bytes_up": size}
        if len(reply.content.metric_records) != 1:
            reason = f"it has {len(reply.content.metric_records)} MetricRecords, expected 1"
            self._events.write("reply_refused", **facts, reason=reason)
        elif flight.round == number:
            self.evaluations.append(reply)
            self._events.write("reply_accepted", **facts, duration_s=seconds, examples=None)

    def lost(self, flight: Flight, reason: str) -> None:
        """No reply will come, or none that can be counted on."""
        if not flight.orphaned:
            self._ledger.lost(flight.node.name, self._clock.now())
        name = flight.node.name
        self._events.write("node_lost", round=self._intake.round, node=name, reason=reason)
        LOG.warning("node %s is lost: %s", name, reason)

    def _failed(self, flight: Flight, code: int, reason: str, duration_s: float) -> None:
        name, reason = flight.node.name, reason or f"error {code}"
        self.last_failure = f"{name}: {reason}"
        if code in LOST:
            self.lost(flight, reason)
            return
        if code != ErrorCode.NODE_UNAVAILABLE:
            self._ledger.answered(name, duration_s)
        facts = {"round": self._intake.round, "kind": flight.kind, "node": name}
        self._events.write("reply_failed", **facts, reason=reason, code=code)
        LOG.warning("node %s failed: %s", name, reason)

    def _learn_name(self, flight: Flight, name: str) -> None:
        # where the grid names its nodes it is believed; elsewhere a node may not take another's name
        unnamed = flight.node.name == str(flight.node.node_id)
        if unnamed and 0 < len(name) <= LONGEST_NAME and name.isprintable():
            holder = self._names.setdefault(flight.node.node_id, name)
            if list(self._names.values()).count(holder) > 1:
                del self._names[flight.node.node_id]
