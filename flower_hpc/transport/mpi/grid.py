"""Flower's Grid over the ranks of one MPI job."""

import math
import threading
from collections.abc import Callable, Iterable

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from flwr.proto.node_pb2 import NodeInfo

from ...clock import WALL
from ..base import OwnGrid, name, unknown
from .line import Line
from .post import Post, Sent
from .rank import Setup


class MpiGrid(OwnGrid):
    """A federation inside one MPI job; made on rank 0, while the others are in :meth:`Rank.serve`.

    Nodes are hosted by ranks 1, 2, ... in turn, always by the same one. A node works on one message at a
    time, and so does a rank: with more nodes than ranks, messages wait for their rank. A reply is there as
    soon as its rank has answered, whatever the others do, so that deadlines, cutoffs and late replies work
    as elsewhere. Nodes are online as long as the job lives: MPI ends it with the first rank that dies.

    Parameters
    ----------
    line : Line
        Rank 0's.
    setup : Setup
        The run.
    """

    def __init__(self, line: Line, setup: Setup) -> None:
        super().__init__(setup.run_id)
        self.on_reply: Callable[[], None] | None = None
        """Called, in a thread of the grid's, whenever a reply has come."""
        self._setup, self._ranks = setup, line.size - 1
        numbers = range(1, setup.nodes + 1)
        self._nodes = [NodeInfo(node_id=number, name=setup.name(number)) for number in numbers]
        self._news = threading.Condition()
        self._sent: dict[str, Sent] = {}
        self._post = Post(line, self._came)
        self._post.start()

    def get_nodes(self) -> Iterable[NodeInfo]:
        """All of them."""
        return list(self._nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Hand each message to its node's rank; those to unknown nodes are left out."""
        taken = []
        for message in messages:
            node_id = message.metadata.dst_node_id
            if 1 <= node_id <= self._setup.nodes:
                name(message)
                expires_at = WALL.now() + message.metadata.ttl
                taken.append(Sent(message, self._setup.host(node_id, self._ranks), expires_at))
        now = WALL.now()
        self.forget([i for i, sent in list(self._sent.items()) if sent.expires_at <= now])
        with self._news:
            self._sent |= {sent.message_id: sent for sent in taken}
        self._post.hand_in(taken)
        return [sent.message_id for sent in taken]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies that have come, and errors for what is expired or unknown."""
        found = [self._pull(message_id) for message_id in message_ids]
        return [reply for reply in found if reply is not None]

    def ready(self) -> set[str]:
        """Which messages :meth:`pull_messages` has an answer to."""
        with self._news:
            now = WALL.now()
            return {i for i, sent in self._sent.items() if sent.reply is not None or sent.expires_at <= now}

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push, then take replies as they come until all have answered or ``timeout`` seconds have passed."""
        left = set(self.push_messages(messages))
        end = math.inf if timeout is None else WALL.now() + timeout
        replies = []
        while left:
            with self._news:
                ready = self._news.wait_for(
                    lambda: [one for one in left if self._is_ready(one)], min(1.0, end - WALL.now())
                )
            for reply in self.pull_messages(ready or ()):
                replies.append(reply)
                left.discard(reply.metadata.reply_to_message_id)
            if WALL.now() >= end:
                break
        self.forget(left)
        return replies

    def forget(self, message_ids: Iterable[str]) -> None:
        """Nobody will ask for these messages' replies."""
        with self._news:
            found = [sent for one in message_ids if (sent := self._sent.pop(one, None)) is not None]
        for sent in found:
            self._post.withdraw(sent)
            if sent.reply is not None:
                self._post.pulled(sent.reply)

    def close(self, patience_s: float) -> list[int]:
        """Tell all ranks that it is over; the ranks that still worked after ``patience_s`` seconds."""
        return self._post.close(patience_s)

    def _came(self, reply: Message) -> None:
        with self._news:
            sent = self._sent.get(reply.metadata.reply_to_message_id)
            if sent is not None and sent.expires_at > WALL.now():
                sent.reply = reply
                self._news.notify_all()
            else:  # nobody asks for it any more
                self._post.pulled(reply)
        if self.on_reply is not None:
            self.on_reply()

    def _is_ready(self, message_id: str) -> bool:
        sent = self._sent.get(message_id)
        return sent is None or sent.reply is not None or sent.expires_at <= WALL.now()

    def _pull(self, message_id: str) -> Message | None:
        with self._news:
            sent = self._sent.get(message_id)
            if sent is None:
                return unknown(message_id)
            if not self._is_ready(message_id):
                return None
            del self._sent[message_id]
        if sent.reply is None:
            self._post.withdraw(sent)
            return Message(Error(ErrorCode.MESSAGE_UNAVAILABLE, "expired"), reply_to=sent.message)
        self._post.pulled(sent.reply)
        return sent.reply
