"""How a federation is: what the controller writes to status.json and the commands print."""

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict


class NodeState(StrEnum):
    """Where a node (or the SuperLink) is."""

    QUEUED = "queued"
    """Its job waits in the queue of a batch system."""
    STARTING = "starting"
    ONLINE = "online"
    RESTARTING = "restarting"
    """It ended by itself, and is started again after a back-off."""
    FAILED = "failed"
    """It ended three times before it came online; it is still tried again."""
    STOPPING = "stopping"
    STOPPED = "stopped"


class State(StrEnum):
    """Where a federation is."""

    DOWN = "down"
    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"
    """It was ready; now the SuperLink or a node is not online."""
    STOPPING = "stopping"
    ORPHANED = "orphaned"
    """Its controller was killed, its processes live: `up` and `down` end them."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class NodeStatus(_Model):
    """A node; ``pid`` is None while it has no process, ``node_id`` until it is known (uint64)."""

    name: str
    site: str
    state: NodeState
    pid: int | None = None
    restarts: int = 0
    node_id: int | None = None
    partition: int
    since: float
    """Seconds since the epoch at which it came into this state."""
    job: str = ""
    """The scheduler's id of its job."""
    where: str = ""
    """The host that it runs on, where a scheduler chose it."""
    reason: str = ""
    """Why it is not online: the scheduler's words, or the last ones of its log."""
    starts_at: float | None = None
    """When its job is expected to start, in seconds since the epoch."""


class SuperLinkStatus(_Model):
    """The SuperLink; ``address`` is host:port."""

    state: NodeState
    pid: int | None = None
    restarts: int = 0
    address: str
    since: float
    job: str = ""
    where: str = ""
    reason: str = ""


class Status(_Model):
    """A federation."""

    name: str
    state: State
    ready: bool = False
    """The SuperLink and every wanted node are online (those that others start, or not), and nothing is left
    to change."""
    generation: int = 0
    controller_pid: int | None = None
    superlink: SuperLinkStatus | None = None
    nodes: tuple[NodeStatus, ...] = ()
    wanted: int = 0
    """All that shall be there, with what autoscale and burst add or take."""
    elastic: dict[str, int] = {}
    """By site: what they add to, or take from, the nodes that the user asks for."""
    lent: dict[str, int] = {}
    """By site: how many nodes elsewhere stand in for its own."""
    usd_per_hour: float = 0.0
    """What the wanted nodes cost, by the file's prices."""
    decision: str = ""
    """The last one about numbers of nodes."""
    trouble: dict[str, str] = {}
    """By site: why its batch system does not answer at present."""

    @property
    def online(self) -> int:
        """How many nodes are online."""
        return sum(node.state is NodeState.ONLINE for node in self.nodes)

    @property
    def only_queued(self) -> bool:
        """Whether all that is not online waits in a batch system's queue."""
        states = {node.state for node in self.nodes}
        link = None if self.superlink is None else self.superlink.state
        waits = link is NodeState.ONLINE and states <= {NodeState.ONLINE, NodeState.QUEUED}
        # one without a job of its own has not been taken by anybody
        waits = waits and all(node.job for node in self.nodes if node.state is NodeState.QUEUED)
        return link is NodeState.QUEUED or (waits and len(self.nodes) == self.wanted)

    @property
    def has_failed(self) -> bool:
        """Whether the SuperLink, or a node that none stands in for, ended thrice before it came online."""
        states = {node.state for node in self.nodes if node.site not in self.lent}
        return NodeState.FAILED in states or (
            self.superlink is not None and self.superlink.state is NodeState.FAILED
        )

    @property
    def address(self) -> str | None:
        """The SuperLink's host:port, while it has one."""
        return self.superlink.address if self.superlink else None

    def to_json(self) -> dict[str, Any]:
        """Plain data, as ``status --json`` prints it."""
        return self.model_dump(mode="json") | {"online": self.online, "address": self.address}
