"""Messages leave: each with what the round asks of its node, written down and remembered."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid

from ...compression import Compression
from ...errors import RunError
from ...protocol import (
    COMPRESSION,
    CONFIG,
    DEADLINE_S,
    LOCAL_STEPS,
    MAX_STEPS,
    NORMALISE,
    NUM_EXAMPLES,
    PROFILE_QUERY,
    REPLY_AS,
    RUN,
    RUN_KEY,
    UPDATE,
    VERSION,
    WANT_PROFILE,
    WEIGHT_KEY,
)
from ...records import num_bytes
from ...telemetry import EventLog
from ..inner import GridView
from ..options import Settings
from ..work import NOTHING, Assignment
from .collect import Collector, Flight, Online
from .intake import Intake
from .messages import bytes_beside, message_bytes, outgoing, replaced
from .state import RunState

PLAIN = Compression()
NO_RATES: Mapping[str, float] = MappingProxyType({})
MIN_LOST_AFTER_S, LOST_AFTER_DURATIONS = 3600.0, 10
PROFILE_LOST_AFTER_S = 600.0


class Dispatcher:
    """Sends the messages of a run.

    Parameters
    ----------
    settings, state, intake, events
        Of the run.
    grid : Grid
        Whose nodes they go to.
    collector : Collector
        Which awaits the replies.
    """

    def __init__(
        self,
        settings: Settings,
        state: RunState,
        intake: Intake,
        events: EventLog,
        grid: Grid,
        collector: Collector,
    ) -> None:
        self._settings, self._state, self._intake, self._events = settings, state, intake, events
        self._grid, self._collector = grid, collector

    def view(self, nodes: Sequence[Online]) -> GridView:
        """The grid as a strategy sees it that configures messages for ``nodes``."""
        return GridView(self._grid, [NodeInfo(node_id=n.node_id, name=n.name) for n in nodes])

    def train(self, nodes: Sequence[Online], messages: Sequence[Message]) -> list[Flight]:
        """Send train messages, with the work that the policy assigns."""
        state, meant = self._state, {m.metadata.dst_node_id for m in messages}
        with self._collector.lock:
            names = [n.name for n in nodes if n.node_id in meant]  # an inner strategy may ask fewer
            work = self._settings.work.assign(names, state.situation())
            budget_s, lost_after_s = self._budget_s(), self._lost_after_s()
            asks = {name: self._asks(name, budget_s, work.get(name, NOTHING)) for name in names}
            parts = self._intake.submodels
            rates = parts.rates(names, state.situation()) if parts else NO_RATES
            sent = self._send(nodes, messages, MessageType.TRAIN, asks, lost_after_s, rates)
            for flight in sent:
                state.ledger.selected(flight.node.name, state.round)
        return sent

    def evaluate(self, nodes: Sequence[Online], messages: Sequence[Message]) -> list[Flight]:
        """Send evaluate messages."""
        asks = {n.name: self._who() for n in nodes}
        return self._send(nodes, messages, MessageType.EVALUATE, asks, self._lost_after_s())

    def query(self, nodes: Sequence[Online]) -> list[Flight]:
        """Ask nodes that were not asked yet for their resources."""
        ledger = self._state.ledger
        new = [n for n in nodes if not ledger.of(n.name).queried]
        for node in new:
            ledger.of(node.name).queried = True
        messages = [
            Message(
                RecordDict({CONFIG: ConfigRecord({})}), n.node_id, PROFILE_QUERY, ttl=PROFILE_LOST_AFTER_S
            )
            for n in new
        ]
        asks: dict[str, Assignment] = {n.name: {**self._who(), WANT_PROFILE: True} for n in new}
        return self._send(new, messages, PROFILE_QUERY, asks, PROFILE_LOST_AFTER_S) if new else []

    def _who(self) -> Assignment:
        name = self._settings.run_name
        asks: dict[str, Any] = {RUN: name, RUN_KEY: name or self._state.key, REPLY_AS: UPDATE}
        if self._settings.weighting.key != NUM_EXAMPLES:
            asks[WEIGHT_KEY] = self._settings.weighting.key
        return {**asks, VERSION: self._intake.model.version}

    def _asks(self, node: str, budget_s: float, work: Assignment) -> Assignment:
        settings, state = self._settings, self._state
        asks: dict[str, Any] = {**self._who(), **settings.weighting.asks, DEADLINE_S: budget_s}
        if settings.profile_every:
            past = state.ledger.of(node)
            due = past.profiled is None or state.round - past.profiled >= settings.profile_every
            asks[WANT_PROFILE] = due
            past.profiled = state.round if due else past.profiled
        if settings.normalise_steps:
            asks[NORMALISE] = True
        if self._intake.control:
            asks |= self._intake.control.asks()
        if settings.compression != PLAIN:
            asks[COMPRESSION] = settings.compression.ask()
        return {**asks, **work}

    def _send(
        self,
        nodes: Sequence[Online],
        messages: Sequence[Message],
        kind: str,
        asks: dict[str, Assignment],
        ttl_s: float,
        rates: Mapping[str, float] = NO_RATES,
    ) -> list[Flight]:
        known, ledger, number = {n.node_id: n for n in nodes}, self._state.ledger, self._state.round
        packed = []
        for message in messages:
            node = known.get(message.metadata.dst_node_id)
            if node is None:
                raise RunError(f"a message goes to {message.metadata.dst_node_id}, not a node of this round")
            rate = rates.get(node.name, 1.0)
            arrays, how = self._pack(node, rate if kind == MessageType.TRAIN else None)
            content = replaced(message.content, self._intake.model.record, arrays)
            if kind == MessageType.TRAIN:
                how = {**how, **self._intake.acks.asks(node.name, node.node_id, self._collector.online)}
            new = outgoing(message, content, {**asks[node.name], **how}, ttl_s, number)
            flight = Flight(node, kind, number, self._intake.model.version, ttl_s, rate=rate)
            flight.bytes_down, flight.bytes_beside = message_bytes(new), bytes_beside(new)
            flight.awaited = not ledger.suspect(node.name)
            flight.limited = LOCAL_STEPS in asks[node.name] or MAX_STEPS in asks[node.name]
            steps = asks[node.name].get(LOCAL_STEPS)
            flight.steps = steps if isinstance(steps, int) else None
            packed.append((new, flight))
        if not any(flight.awaited for _, flight in packed):
            for _, flight in packed:
                flight.awaited = True
        sent, whole = self._collector.send(packed), num_bytes(self._intake.model.record)
        told = []
        for flight in sent:
            facts: dict[str, Any] = {"round": number, "kind": kind, "node": flight.node.name}
            facts |= {"bytes_down": flight.bytes_down, "version": flight.version}
            if kind != PROFILE_QUERY:
                facts["bytes_down_full"] = whole + flight.bytes_beside
            told.append(facts)
            if ledger.suspect(flight.node.name):
                ledger.probed(flight.node.name, self._state.clock.wall())
        self._events.write_all("sent", told)
        return sent

    def _pack(self, node: Online, rate: float | None) -> tuple[ArrayRecord, Assignment]:
        intake = self._intake
        if intake.submodels is None or rate is None:
            return intake.downlink.pack(node, intake.model)
        plain = not intake.downlink.reads(node.name)
        return intake.submodels.pack(node.name, self._state.round, rate, intake.model, plain=plain)

    def _lost_after_s(self) -> float:
        if self._settings.lost_after_s is not None:
            return self._settings.lost_after_s
        slow = LOST_AFTER_DURATIONS * self._state.ledger.slowest_s()
        due = self._state.due_s + self._settings.grace_s  # its round may last that long
        return max(MIN_LOST_AFTER_S, slow, due if math.isfinite(due) else 0.0)

    def _budget_s(self) -> float:
        # work that would be discarded ends at the cut; else it is worth finishing
        lost_after, due = self._lost_after_s(), self._state.situation().due_s
        discards = self._settings.worth.weight(1) == 0
        return min(due, lost_after) if discards and math.isfinite(due) else lost_after
