"""Messages under way: send them, poll for their replies one by one, know who is busy.

Flower's rules that shape this (read in its source): pulling the id of an offline node deletes message and
reply, so only ids of nodes listed online are pulled; pulling many ids at once holds all replies in memory, so
they are pulled one by one; a pull blocks while its sender still uploads, so a slow one is left to a thread
of its own; nodes that leave stay listed for a few seconds, so polling goes on whatever the server computes.
"""

import math
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from flwr.app import Message
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid

from ...clock import Clock
from .bell import ring
from .patient import Patient

FIRST_POLL_S, LAST_POLL_S, IDLE_POLL_S = 0.05, 0.25, 1.0
SLOW_PULL_S = 0.5
PARALLEL_PULLS = 8  # of which all but one wait for an upload, and hold next to nothing


@dataclass(frozen=True)
class Online:
    """A node that the grid lists online."""

    node_id: int
    name: str
    activated: str = ""


@dataclass(eq=False)
class Flight:
    """One message under way to a node.

    ``awaited`` is False for a probe of a suspect node. ``orphaned`` marks a message whose node came back
    under its key after it was sent, or whose scheduler says that it is gone: the work may be lost, so the
    node counts as idle, but a reply would still be taken. ``missed``: its node was seen to go. ``rate``: the
    part of the model's units that it was sent. ``bytes_beside``: what travelled beside the model.
    ``limited``: the server set its steps, exactly ``steps`` of them where it says so. ``sent_at`` is the
    clock's ``now()``, ``sent_wall`` seconds since the epoch.
    """

    node: Online
    kind: str
    round: int
    version: int
    ttl_s: float
    sent_at: float = 0.0
    sent_wall: float = 0.0
    bytes_down: int = 0
    bytes_beside: int = 0
    limited: bool = False
    steps: int | None = None
    awaited: bool = True
    orphaned: bool = False
    missed: bool = False
    rate: float = 1.0


class Listener(Protocol):
    """What the collector tells of."""

    def name_of(self, info: NodeInfo) -> str:
        """The stable name of a node."""
        ...

    def replied(self, flight: Flight, reply: Message, duration_s: float) -> None:
        """A reply (content or error) came, so many seconds after dispatch."""
        ...

    def lost(self, flight: Flight, reason: str, suspect: bool = False) -> None:
        """A message will never be answered, or its node is gone or came back without it.

        ``suspect``: nobody knows what became of the node.
        """
        ...

    def away(self, online: Mapping[int, Online]) -> Mapping[int, str]:
        """Ids of nodes that are listed online but known to be gone, and why."""
        ...


@dataclass
class Collector:
    """Sends, polls and hands each reply on as it comes; a context manager that owns the polling thread.

    With a wall clock one thread polls until the end of the run, also while the server aggregates or
    evaluates; callbacks run in it, one at a time, under ``lock``. With a virtual clock there are no threads:
    :meth:`wait` polls and makes time pass.

    Parameters
    ----------
    grid : Grid
        Any Flower grid. One that knows which replies have come may say so: ``ready()`` gives their messages'
        ids, at least, and an attribute ``on_reply`` is called when there is another. Then nothing is polled
        in vain, and no reply waits for the next poll.
    clock : Clock
        The grid's own, or the wall clock.
    listener : Listener
        Told of each reply and each loss.
    """

    grid: Grid
    clock: Clock
    listener: Listener
    flights: dict[str, Flight] = field(default_factory=dict)
    online: dict[int, Online] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.lock = threading.Condition(threading.RLock())
        self._away: Mapping[int, str] = {}
        self._pulls: dict[str, Future[list[Message]]] = {}
        self._ready: Callable[[], Collection[str]] | None = getattr(self.grid, "ready", None)
        self._interval = FIRST_POLL_S
        self._ask = Patient(self.clock)
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        """Begin to poll."""
        self.poll()
        if not self.clock.virtual:
            if self._ready is None:
                self._pool = ThreadPoolExecutor(PARALLEL_PULLS, "flower-hpc-pull")
            else:
                self.grid.on_reply = self._wake.set  # type: ignore[attr-defined]
            self._thread = threading.Thread(target=self._run, name="flower-hpc-poll", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop polling."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=2 * SLOW_PULL_S)
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def send(self, messages: Sequence[tuple[Message, Flight]]) -> list[Flight]:
        """Push messages; returns the flights of those that the grid took."""
        taken = set(self.grid.push_messages([message for message, _ in messages]))
        now, wall, sent = self.clock.now(), self.clock.wall(), []
        with self.lock:
            for message, flight in messages:
                # by id, never by position: grids leave refused messages out, or give None or "" for them
                if (message_id := message.metadata.message_id) and message_id in taken:
                    flight.sent_at, flight.sent_wall = now, wall
                    self.flights[message_id] = flight
                    sent.append(flight)
        ring(flight.node.node_id for flight in sent)
        self._interval = FIRST_POLL_S
        self._wake.set()
        return sent

    def busy(self) -> set[int]:
        """Ids of the nodes that still work on a message."""
        with self.lock:
            return {f.node.node_id for f in self.flights.values() if not f.orphaned}

    def idle(self) -> list[Online]:
        """Nodes online that work on nothing."""
        with self.lock:
            out = self.busy() | self._away.keys()
            return [node for node in self.online.values() if node.node_id not in out]

    def waiting(self, kind: str, number: int | None = None) -> list[Flight]:
        """Flights worth waiting for: awaited, not orphaned, their nodes online; of one round or of all."""
        with self.lock:
            return [
                f
                for f in self.flights.values()
                if f.kind == kind
                and number in (None, f.round)
                and f.awaited
                and not f.orphaned
                and f.node.node_id in self.online
                and f.node.node_id not in self._away
            ]

    def wait(self, done: Callable[[], bool], until: float = float("inf")) -> bool:
        """Block until ``done()`` (checked after every reply and poll) or ``clock.now() >= until``."""
        if self.clock.virtual:
            return self._wait_virtually(done, until)
        with self.lock:
            while True:
                if self._error is not None:
                    raise self._error
                if done():
                    return True
                left = until - self.clock.now()
                if left <= 0:
                    return False
                self.lock.wait(min(left, LAST_POLL_S))

    def poll(self) -> None:
        """Look once: who is online, what is lost, what has arrived."""
        self._look()
        self._take()

    def _look(self) -> None:
        nodes = self._ask("nodes", lambda: list(self.grid.get_nodes()))
        if nodes is None:
            return
        with self.lock:
            self.online = {
                n.node_id: Online(n.node_id, self.listener.name_of(n), n.last_activated_at) for n in nodes
            }
            self._away = self.listener.away(self.online)
            self._find_lost()

    def _take(self) -> None:
        with self.lock:
            there = list(self.flights) if self._ready is None else self._ready()
            due = [(i, self.flights[i]) for i in there if i in self.flights]
            online = self.online
        for message_id, flight in due:
            if flight.node.node_id not in online:
                continue
            for reply in self._pull(message_id):
                with self.lock:
                    if self.flights.pop(message_id, None) is not None:
                        self.listener.replied(flight, reply, self.clock.now() - flight.sent_at)
        with self.lock:
            self.lock.notify_all()

    def _find_lost(self) -> None:
        now = self.clock.now()
        for message_id, flight in list(self.flights.items()):
            node = self.online.get(flight.node.node_id)
            if now > flight.sent_at + flight.ttl_s:
                del self.flights[message_id]
                self.listener.lost(flight, f"no answer in {flight.ttl_s:g} s", suspect=not flight.orphaned)
            elif node is not None and node.activated != flight.node.activated and not flight.orphaned:
                flight.orphaned = True
                self.listener.lost(flight, "it came back under its key; the work may be lost")
            elif flight.node.node_id in self._away and not flight.orphaned:
                flight.orphaned = True
                self.listener.lost(flight, self._away[flight.node.node_id])
            elif node is None and not flight.missed:  # a reply is still taken if it comes back with one
                self.listener.lost(flight, "it went offline with a message")
                flight.missed = True

    def _pull(self, message_id: str) -> list[Message]:
        if self._pool is None:
            return self._ask(message_id, lambda: list(self.grid.pull_messages([message_id]))) or []
        future = self._pulls.pop(message_id, None)
        if future is None:
            future = self._pool.submit(lambda: list(self.grid.pull_messages([message_id])))
            wait([future], SLOW_PULL_S)
        if future.done():
            return self._ask(message_id, future.result) or []
        self._pulls[message_id] = future
        return []

    def _run(self) -> None:
        looked = -math.inf
        try:
            while not self._stop.is_set():
                started = self.clock.now()
                self._wake.clear()
                # of a grid that rings for replies, nodes are looked at as often as of one that is polled
                if self._ready is None or started >= looked + LAST_POLL_S:
                    self._look()
                    looked = started
                self._take()
                self._interval = min(self._interval * 1.5, LAST_POLL_S)
                # a poll of many nodes takes time itself: leave the SuperLink as much for its other work
                pause = max(self._interval, min(self.clock.now() - started, IDLE_POLL_S))
                self._wake.wait(pause if self.flights else IDLE_POLL_S)
        except BaseException as error:  # handed to the thread that waits, which raises it
            with self.lock:
                self._error = error
                self.lock.notify_all()

    def _wait_virtually(self, done: Callable[[], bool], until: float) -> bool:
        interval = FIRST_POLL_S
        while True:
            self.poll()
            if done():
                return True
            left = until - self.clock.now()
            if left <= 0:
                return False
            self.clock.sleep(min(interval, left))
            interval = min(interval * 1.5, LAST_POLL_S)
