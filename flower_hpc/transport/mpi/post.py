"""Rank 0's post: one thread hands messages to ranks that are free, and takes their replies as they come.

No other thread of rank 0 speaks MPI. What it sends goes to ranks that wait for it, and large replies are sent
only when it asks for them: nothing here waits for a rank that works.
"""

import logging
import pickle
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Message

from ...clock import WALL
from ...errors import ReplyError, RunError
from ..base import raised
from .line import GO, HEAD, REPLY, STOP, Line, Pause
from .parcel import pack, unpack
from .rank import INLINE
from .shelf import Item, Shelf

log = logging.getLogger(__name__)

WINDOW, PATIENT_S = 64 << 20, 1.0
"""Bytes of replies that nobody has pulled yet; beyond, ranks keep theirs so long, in case somebody does."""
AHEAD = 2
"""Messages that a rank has at a time: one that it works on, and the next."""


@dataclass(eq=False)
class Sent:
    """A message under way."""

    message: Message
    rank: int
    expires_at: float
    reply: Message | None = None
    withdrawn: bool = False
    text: bytes = b""
    data: list[bytes] | None = None
    items: list[Item] = field(default_factory=list)

    @property
    def message_id(self) -> str:
        """Its id."""
        return str(self.message.metadata.message_id)


class Post:
    """The thread.

    Parameters
    ----------
    line : Line
        Rank 0's.
    came : callable
        Called, in the thread, with each reply.
    """

    def __init__(self, line: Line, came: Callable[[Message], None]) -> None:
        self._line, self._came = line, came
        self._shelf = Shelf()
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._queues: dict[int, deque[Sent]] = {rank: deque() for rank in range(1, line.size)}
        self._out: dict[int, deque[Sent]] = {rank: deque() for rank in self._queues}
        self._offers: deque[tuple[int, Mapping[str, Any]]] = deque()
        self._sizes: dict[str, int] = {}
        self._taken_at = 0.0
        self._over = False
        self._thread = threading.Thread(target=self._run, name="flower-hpc-mpi", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def hand_in(self, messages: Sequence[Sent]) -> None:
        """Have messages handed to their ranks, each as soon as its rank is free."""
        items: list[Item] = []
        with self._lock:
            for sent in messages:
                sent.text, data = pack(sent.message)
                if sum(len(one) for one in data) <= INLINE:
                    sent.data = data
                else:
                    sent.items = self._shelf.take(data)
                    items += sent.items
                self._queues[sent.rank].append(sent)
            if items:
                self._shelf.tidy(items)
        self._wake.set()

    def withdraw(self, sent: Sent) -> None:
        """A message that is not handed out yet shall not be."""
        sent.withdrawn = True

    def pulled(self, reply: Message) -> None:
        """A reply has left: there is room for another."""
        with self._lock:
            self._sizes.pop(str(reply.metadata.reply_to_message_id), None)
        self._wake.set()

    def close(self, patience_s: float) -> list[int]:
        """End it: free ranks at once, others when they have stopped; those that have not after so long."""
        self._over = True
        self._wake.set()
        self._thread.join()
        for rank in self._busy():
            self._line.post(rank, STOP, b"")
        until, pause = WALL.now() + patience_s, Pause()
        while self._busy() and WALL.now() < until:
            if self._offers or (found := self._line.look(REPLY)) is None:
                self._take_offers()
                pause.take()
                continue
            rank, head = found[0], pickle.loads(found[1])
            if head.get("over"):
                self._out[rank].clear()
                self._queues.pop(rank)
            else:
                self._replied(rank, head)
        late = self._busy()
        for rank in self._queues:
            if rank not in late:
                self._line.send(rank, HEAD, pickle.dumps({"kind": "stop"}))
        return late

    def _busy(self) -> list[int]:
        return [rank for rank, out in self._out.items() if out]

    # -- the thread ----------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException:  # nobody would be told: the server waits for replies, the ranks for messages
            log.exception("the MPI job cannot go on")
            self._line.abort(1)

    def _serve(self) -> None:
        pause = Pause()
        while not self._over:
            if self._hand_out() or self._take_in():
                pause.news()
            elif self._busy():
                self._wake.wait(pause.seconds)
            else:
                self._wake.wait()
                pause.news()
            self._wake.clear()

    def _hand_out(self) -> bool:
        with self._lock:
            due = {rank: sent for rank in self._queues if (sent := self._next(rank)) is not None}
            missing: dict[tuple[Item, ...], list[int]] = {}
            for rank, sent in due.items():
                if lacks := self._shelf.missing(rank, sent.items):
                    missing.setdefault(tuple(lacks), []).append(rank)
            drops = {rank: self._shelf.drops(rank) for rank in due}
        for items, ranks in missing.items():
            self._ship(items, ranks, drops)
        for rank, sent in due.items():
            how = (
                {"data": sent.data} if sent.data is not None else {"numbers": [i.number for i in sent.items]}
            )
            head = {"kind": "work", "text": sent.text, "drop": drops.pop(rank, []), **how}
            self._line.post(rank, HEAD, pickle.dumps(head))
            self._out[rank].append(sent)
        with self._lock:
            for sent in due.values():
                self._shelf.release(sent.items)
                sent.items, sent.data, sent.text = [], None, b""
        return bool(due)

    def _next(self, rank: int) -> Sent | None:
        """The rank's next message, if it may be handed out now; it leaves the queue."""
        queue, out = self._queues[rank], self._out[rank]
        while queue and len(out) < AHEAD:
            if queue[0].withdrawn or queue[0].expires_at <= WALL.now():
                self._shelf.release(queue.popleft().items)
            # arrays are shipped to ranks that wait for them alone
            elif out and self._shelf.missing(rank, queue[0].items):
                return None
            else:
                return queue.popleft()
        return None

    def _ship(self, items: Sequence[Item], ranks: Sequence[int], drops: dict[int, list[int]]) -> None:
        numbers, data = [item.number for item in items], [item.data for item in items]
        sizes = [len(one) for one in data]
        together = len(ranks) > 1 and self._line.can_spread(ranks)
        for rank in ranks:
            head = {"kind": "take", "numbers": numbers, "sizes": sizes, "drop": drops.pop(rank, [])}
            self._tell(rank, {**head, "ranks": tuple(ranks) if together else None})
            if not together:
                self._line.send_data(rank, data)
        if together:
            self._line.spread(ranks, data)
        with self._lock:
            for item in items:
                item.holders.update(ranks)

    def _take_in(self) -> bool:
        if not self._has_room(1):
            return False
        found = self._line.look(REPLY)
        if found is not None:
            self._replied(found[0], pickle.loads(found[1]))
        return self._take_offers() or found is not None

    def _replied(self, rank: int, head: Mapping[str, Any]) -> None:
        if "failed" in head:
            sent = self._out[rank].popleft()
            self._came(raised(RunError(head["failed"]), sent.message))
        elif "sizes" in head:
            self._offers.append((rank, head))
        else:
            self._deliver(rank, head, head["data"])

    def _has_room(self, size: int) -> bool:
        """Whether a reply may be taken; one that nobody pulls must not keep others out for ever."""
        with self._lock:
            held = sum(self._sizes.values())
        return not held or held + size <= WINDOW or self._over or WALL.now() > self._taken_at + PATIENT_S

    def _take_offers(self) -> bool:
        taken = False
        while self._offers and self._has_room(sum(self._offers[0][1]["sizes"])):
            rank, head = self._offers.popleft()
            self._line.send(rank, GO, b"")
            self._deliver(rank, head, self._line.receive_data(rank, head["sizes"]))
            taken = True
        return taken

    def _deliver(self, rank: int, head: Mapping[str, Any], data: Sequence[bytes]) -> None:
        sent = self._out[rank].popleft()
        reply = read(head["text"], data, sent.message)
        with self._lock:
            self._sizes[sent.message_id] = len(head["text"]) + sum(len(one) for one in data)
            self._taken_at = WALL.now()
        self._came(reply)

    def _tell(self, rank: int, head: Mapping[str, Any]) -> None:
        self._line.send(rank, HEAD, pickle.dumps(head))


def read(text: bytes, data: Sequence[bytes], message: Message) -> Message:
    """The reply to a message; an error where what came is none."""
    try:
        reply = unpack(text, data)
        if (
            not isinstance(reply, Message)
            or reply.metadata.reply_to_message_id != message.metadata.message_id
        ):
            raise ReplyError("it answers another message")
    except Exception as error:  # an app's own classes raise what they like when they are unpickled
        log.warning("a reply of node %s is refused: %s", message.metadata.dst_node_id, error)
        return raised(error, message)
    return reply


def wait_for_ranks(line: Line, seen: Callable[[int], None] = lambda count: None) -> Iterable[str]:
    """Wait until every rank has loaded its ClientApp; their hosts.

    Raises
    ------
    RunError
        One could not.
    """
    hosts: list[str] = []
    failed: list[str] = []
    pause = Pause()
    while len(hosts) < line.size - 1:
        if (found := line.look(REPLY)) is None:
            pause.take()
            continue
        head = pickle.loads(found[1])
        if head["error"]:
            log.error("%s", head["error"])
            words = " ".join(head["error"].strip().splitlines()[-1].split())
            failed.append(f"rank {found[0]} on {head['host']} cannot load the ClientApp: {words}")
        hosts.append(str(head["host"]))
        seen(len(hosts))
    if failed:  # once all have said theirs, and listen
        raise RunError(failed[0])
    return hosts
