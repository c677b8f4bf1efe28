"""A whole federation in one process, for tests and notebooks: real ClientApps, pretended delays and failures.

What it shares with a SuperLink and SuperNodes: a node works on one message at a time; messages have a time to
live; a node that goes offline loses its work and comes back under its name and id; pulling the id of an
offline node deletes message and reply; an exception in the app is an error reply. What it leaves out: bytes
on a wire, processes, authentication.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.proto.node_pb2 import NodeInfo

from ..clock import Clock, VirtualClock
from ..errors import ConfigError
from ..protocol import NODE_NAME, NUM_PARTITIONS, PARTITION_ID
from .base import OwnGrid, name, raised, unknown

Scalar = bool | int | float | str


@dataclass(frozen=True)
class InProcessNode:
    """One pretended SuperNode.

    Parameters
    ----------
    name : str
        Its stable name.
    delay_s : float or callable
        Seconds from taking up a message to its reply, >= 0, or a function of the message; default 1.
        Infinite: it never answers.
    offline : sequence of (float, float)
        Spans of the clock in which it is gone; work that such a span touches is lost.
    fails : callable, optional
        ``(message) -> reason | None``: where it gives a reason the reply is that error.
    node_config : mapping
        Beside ``name``, ``partition-id`` and ``num-partitions``, which are set.
    app : ClientApp, optional
        Its own app, where it differs from the grid's.
    """

    name: str
    delay_s: float | Callable[[Message], float] = 1.0
    offline: Sequence[tuple[float, float]] = ()
    fails: Callable[[Message], str | None] | None = None
    node_config: Mapping[str, Scalar] = field(default_factory=dict)
    app: ClientApp | None = None

    def __post_init__(self) -> None:
        if not callable(self.delay_s) and not self.delay_s >= 0:
            raise ConfigError(f"delay_s of {self.name!r} must be >= 0, got {self.delay_s!r}")
        for start, end in self.offline:
            if not start < end:
                raise ConfigError(f"offline span of {self.name!r} must end after it starts: {start}, {end}")

    def is_online(self, now: float) -> bool:
        """Outside of every offline span."""
        return not any(start <= now < end for start, end in self.offline)

    def activated(self, now: float) -> float:
        """When it last came online."""
        return max((end for _, end in self.offline if end <= now), default=0.0)

    def finishes(self, start: float, delay: float) -> float:
        """When work begun at ``start`` is done; infinite if it is lost."""
        done = start + delay
        return math.inf if any(s < done and start < e for s, e in self.offline) else done


@dataclass
class _Job:
    node_id: int
    message: Message
    ready_at: float
    expires_at: float


class InProcessGrid(OwnGrid):
    """Flower's Grid over ClientApps in this process.

    Parameters
    ----------
    app : ClientApp
        What every node runs.
    nodes : int or iterable of InProcessNode
        The nodes; a number makes that many, named ``node-0``, ``node-1``, ..., that take one second each.
    clock : Clock, optional
        Default a :class:`VirtualClock`: delays and deadlines cost no real time. With the wall clock they do.
    run_config : mapping
        The apps' run config.
    named : bool
        False leaves ``NodeInfo.name`` empty, as an insecure federation does; default True.
    """

    def __init__(
        self,
        app: ClientApp,
        nodes: int | Iterable[InProcessNode] = 4,
        *,
        clock: Clock | None = None,
        run_config: Mapping[str, Scalar] | None = None,
        named: bool = True,
    ) -> None:
        super().__init__()
        self.clock: Clock = VirtualClock() if clock is None else clock
        if isinstance(nodes, int):
            nodes = [InProcessNode(f"node-{i}") for i in range(nodes)]
        self.nodes = dict(enumerate(nodes, start=1))
        self._app, self._named = app, named
        self._contexts = {
            node_id: Context(1, node_id, self._config(node_id), RecordDict(), dict(run_config or {}))
            for node_id in self.nodes
        }
        self._free_at = dict.fromkeys(self.nodes, 0.0)
        self._jobs: dict[str, _Job] = {}

    def _config(self, node_id: int) -> dict[str, Scalar]:
        node = self.nodes[node_id]
        place: dict[str, Scalar] = {PARTITION_ID: node_id - 1, NUM_PARTITIONS: len(self.nodes)}
        return {NODE_NAME: node.name} | place | dict(node.node_config)

    def get_nodes(self) -> Iterable[NodeInfo]:
        """The nodes that are online now."""
        now = self.clock.now()
        return [
            NodeInfo(
                node_id=node_id,
                name=node.name if self._named else "",
                last_activated_at=str(node.activated(now)),
            )
            for node_id, node in self.nodes.items()
            if node.is_online(now)
        ]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Queue each message at its node; those to unknown nodes are left out."""
        now, ids = self.clock.now(), []
        for message in messages:
            node_id = message.metadata.dst_node_id
            if (node := self.nodes.get(node_id)) is None:
                continue
            message_id = name(message)
            delay = node.delay_s(message) if callable(node.delay_s) else node.delay_s
            start = max(now, self._free_at[node_id], node.activated(now))
            ready = node.finishes(start, delay)
            self._free_at[node_id] = ready if ready < math.inf else start
            self._jobs[message_id] = _Job(node_id, message, ready, now + message.metadata.ttl)
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies that are ready, and errors for what is expired or whose node is offline."""
        replies = (self._pull(message_id) for message_id in message_ids)
        return [reply for reply in replies if reply is not None]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push, then pull until all have answered or ``timeout`` seconds have passed."""
        ids, replies = set(self.push_messages(messages)), []
        end = math.inf if timeout is None else self.clock.now() + timeout
        while ids and self.clock.now() < end:
            new = list(self.pull_messages(ids))
            replies += new
            ids -= {reply.metadata.reply_to_message_id for reply in new}
            if ids:
                self.clock.sleep(0.1)
        return replies

    def _pull(self, message_id: str) -> Message | None:
        job, now = self._jobs.get(message_id), self.clock.now()
        if job is None:
            return unknown(message_id)
        if now > job.expires_at:
            del self._jobs[message_id]
            return Message(Error(ErrorCode.MESSAGE_UNAVAILABLE, "expired"), reply_to=job.message)
        if not self.nodes[job.node_id].is_online(now):
            del self._jobs[message_id]
            return Message(Error(ErrorCode.NODE_UNAVAILABLE, "node is offline"), reply_to=job.message)
        if now < job.ready_at:
            return None
        del self._jobs[message_id]
        return self._answer(job)

    def _answer(self, job: _Job) -> Message:
        node = self.nodes[job.node_id]
        # records of its own: an app that changes what it was sent must not change what others are sent
        job.message.content = RecordDict({k: v.copy() for k, v in job.message.content.items()})
        if node.fails is not None and (reason := node.fails(job.message)) is not None:
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=job.message)
        try:
            return (node.app or self._app)(job.message, self._contexts[job.node_id])
        except Exception as error:
            return raised(error, job.message)
