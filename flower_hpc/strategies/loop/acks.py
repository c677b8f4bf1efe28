"""What became of each node's updates, for the node to hear with its next message.

Every train message bears a ticket, which the update bears too. Until an update is joined its ticket is *sent*; then
it is *waiting*; when the model with it is published it is *received*, until the node has heard so. When a node is
asked anew, what is still *sent* is void: the node takes its mass back, and should the update come after
all, it is dropped.
"""

import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from ...protocol import RECEIVED, TICKET, WAITING
from ..work import Assignment

SENT, WAITS, HAS_COME = "sent", "waiting", "received"
Ticket = tuple[str, str]  # node, ticket


class Acks:
    """The tickets of a run's nodes."""

    def __init__(self) -> None:
        self._states: dict[str, dict[str, str]] = {}
        self._told: dict[str, list[str]] = {}  # ticket of a message -> what it told as received

    def asks(self, node: str) -> Assignment:
        """What a train message to ``node`` carries."""
        states = self._states.setdefault(node, {})
        for ticket in [t for t, state in states.items() if state == SENT]:
            del states[ticket]
            self._told.pop(ticket, None)
        received = [t for t, state in states.items() if state == HAS_COME]
        waiting = [t for t, state in states.items() if state == WAITS]
        ticket = secrets.token_hex(8)
        states[ticket], self._told[ticket] = SENT, received
        return {TICKET: ticket, RECEIVED: received, WAITING: waiting}

    def came(self, node: str, ticket: str) -> bool:
        """Whether a reply's ticket is one to count; its node has heard what the message told."""
        states = self._states.get(node, {})
        for told in self._told.pop(ticket, []) if ticket in states else []:
            states.pop(told, None)
        return states.get(ticket) == SENT

    def wait(self, tickets: Iterable[Ticket]) -> None:
        """Their updates were joined to what will be a model."""
        self._set(tickets, WAITS)

    def receive(self, tickets: Iterable[Ticket]) -> None:
        """Their updates are part of a model."""
        self._set(tickets, HAS_COME)

    def lose(self, tickets: Iterable[Ticket]) -> None:
        """What they were joined to came to nothing."""
        self._set(tickets, SENT)

    def to_tree(self) -> dict[str, Any]:
        """For a checkpoint."""
        states = {node: dict(states) for node, states in self._states.items()}
        return {"states": states, "told": {t: list(told) for t, told in self._told.items()}}

    def restore(self, tree: Mapping[str, Any]) -> None:
        """Take over what :meth:`to_tree` gave."""
        self._states, self._told = tree["states"], tree["told"]

    def _set(self, tickets: Iterable[Ticket], state: str) -> None:
        for node, ticket in tickets:
            if ticket in self._states.get(node, {}):
                self._states[node][ticket] = state
