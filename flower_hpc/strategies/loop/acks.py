"""What became of each node's updates, for the node to hear with its next message.

Every train message bears a ticket, which the update bears too. Until an update is joined its ticket is
*sent*; then it is *waiting*; when the model with it is published it is *received*, until the node has heard
so. When a node is asked anew, what is still *sent* is void: the node takes its mass back, and should the
update come after all, it is dropped.
"""

import secrets
from collections.abc import Container, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ...protocol import RECEIVED, TICKET, WAITING
from ..work import Assignment

SENT, WAITS, HAS_COME = "sent", "waiting", "received"
Ticket = tuple[str, str]  # node, ticket


@dataclass
class Note:
    """One ticket: what became of its update, the node id it went to and what its message told as received."""

    state: str
    node_id: int
    told: list[str]


class Acks:
    """The tickets of a run's nodes."""

    def __init__(self) -> None:
        self._notes: dict[str, dict[str, Note]] = {}

    def asks(self, node: str, node_id: int, online: Container[int] = ()) -> Assignment:
        """What a train message to ``node`` carries.

        Parameters
        ----------
        node, node_id : str, int
            Its stable name, which another node may have as well, and Flower's id, which may be new after a
            restart.
        online : container of int
            Ids of nodes whose own tickets are their own, whatever their names.
        """
        notes = self._notes.setdefault(node, {})
        own = {t: n for t, n in notes.items() if n.node_id == node_id or n.node_id not in online}
        for ticket, note in own.items():
            if note.state == SENT:
                del notes[ticket]
        received = [t for t, note in own.items() if note.state == HAS_COME]
        waiting = [t for t, note in own.items() if note.state == WAITS]
        ticket = secrets.token_hex(8)
        notes[ticket] = Note(SENT, node_id, received)
        return {TICKET: ticket, RECEIVED: received, WAITING: waiting}

    def came(self, node: str, ticket: str) -> bool:
        """Whether a reply's ticket is one to count; its node has heard what the message told."""
        notes = self._notes.get(node, {})
        note = notes.get(ticket)
        if note is None:
            return False
        for told in note.told:
            notes.pop(told, None)
        note.told = []
        return note.state == SENT

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
        return {node: {t: asdict(note) for t, note in notes.items()} for node, notes in self._notes.items()}

    def restore(self, tree: Mapping[str, Any]) -> None:
        """Take over what :meth:`to_tree` gave."""
        self._notes = {node: {t: Note(**note) for t, note in notes.items()} for node, notes in tree.items()}

    def _set(self, tickets: Iterable[Ticket], state: str) -> None:
        for node, ticket in tickets:
            if ticket in self._notes.get(node, {}):
                self._notes[node][ticket].state = state
