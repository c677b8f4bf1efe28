"""A SuperNode as the controller sees it: its plan, and the keeper of its process or job."""

from collections.abc import Callable

from ..clock import WALL
from ..launchers import JobSpec, JobState, Launcher
from ..launchers.supernode_log import ONLINE
from .facts import LEAVING, Facts
from .hearing import Hearing
from .jobs import NodePlan, supernode_job
from .keeper import Keeper
from .state import StateDir
from .status import NodeState, NodeStatus

SLOW_S, SILENT_S = 15.0, 100.0
"""Heartbeats come every 30 s, whatever a node is doing."""


class Node:
    """A SuperNode: its plan, and the keeper of its process or job.

    Parameters
    ----------
    plan : NodePlan
        How it is started.
    state : StateDir
        The federation's.
    launcher : Launcher
        Of its site.
    facts : Facts
        Told what the scheduler knows of it, for the strategies.
    prepare : callable
        Called before each start.
    heard : Hearing, optional
        Which nodes the gateway hears: how one is known to be online whose log lies elsewhere.
    """

    def __init__(
        self,
        plan: NodePlan,
        state: StateDir,
        launcher: Launcher,
        facts: Facts,
        prepare: Callable[[], None] = lambda: None,
        heard: Hearing | None = None,
    ) -> None:
        self.plan = plan
        self.node_id: int | None = None
        self.keeper = Keeper(plan.name, launcher, self._spec, self._online, prepare=prepare)
        self._state, self._facts, self._heard = state, facts, heard
        self._told_restarts = 0
        self._leaves = False
        self._old_id: int | None = None

    def tick(self) -> None:
        """Look at it, and tell what has changed."""
        before = self.keeper.state
        self.keeper.tick()
        if self.keeper.state is NodeState.ONLINE and self._is_silent():
            self.keeper.look_again()
        self._tell(before)

    def _tell(self, before: NodeState) -> None:
        keeper, name = self.keeper, self.plan.name
        if keeper.restarts != self._told_restarts:
            self._told_restarts = keeper.restarts
            # back in the queue under the same id, it was preempted or its host is gone
            status = keeper.status
            state = status.state if status.state.final else status.ended or JobState.PREEMPTED
            ended = JobState.CANCELLED if state is JobState.SUCCEEDED else state
            self._facts.tell(name, ended, keeper.last_words)
        if keeper.state is NodeState.QUEUED:
            self._facts.tell(name, JobState.PENDING, keeper.status.reason, keeper.status.starts_at)
        elif keeper.state is NodeState.ONLINE:
            leaves = keeper.status.leaves_at is not None
            if leaves:
                self._facts.tell(name, LEAVING, keeper.status.reason)
            elif before is not NodeState.ONLINE or self._leaves:  # or it may stay after all
                self._facts.tell(name, JobState.RUNNING, keeper.status.where)
            self._leaves = leaves

    def _heard_at(self) -> float:
        return (self._heard.last(self.plan.name) or 0.0) if self._heard else 0.0

    def _is_silent(self) -> bool:
        # its platform may be out of reach too, and say nothing; a new gateway has heard nobody yet
        return self.plan.bundled and 0.0 < self._heard_at() < WALL.wall() - SILENT_S

    def _says(self) -> str:
        """Why it is not online yet."""
        keeper = self.keeper
        runs = keeper.status.state is JobState.RUNNING and keeper.state is NodeState.STARTING
        if self.plan.bundled and runs and WALL.wall() - keeper.since > SLOW_S:
            before = f"; before: {keeper.last_words}" if keeper.last_words else ""
            return (
                f"it runs, but the gateway has not heard of it: does it reach the gateway's address?{before}"
            )
        return keeper.reason

    def signs_on_anew(self) -> None:
        """Its SuperLink is another one, which gives it another id: what its log says of the old is void."""
        self._old_id, self.node_id = self.node_id or self._old_id, None
        self.keeper.look_again()

    def _spec(self) -> JobSpec:
        return supernode_job(self.plan, self._state)

    def _online(self, job: str) -> bool:
        if self.plan.bundled and self._heard is not None:
            return self._heard_at() > self.keeper.since
        found = ONLINE.search(self.keeper.launcher.logs(job))
        if found is None or int(found[1]) == self._old_id:
            return False
        self.node_id = int(found[1])
        return True

    def status(self, node_id: int | None, waiting: NodeState, why: str = "") -> NodeStatus:
        """How it is; ``waiting`` where it waits for the SuperLink or its registration, and ``why``."""
        keeper, job = self.keeper, self.keeper.status
        state = waiting if keeper.stopped else keeper.state
        runs = keeper.job is not None
        return NodeStatus(
            name=self.plan.name,
            site=self.plan.site,
            state=state,
            pid=job.pid if runs else None,
            restarts=keeper.restarts,
            node_id=node_id,
            partition=self.plan.partition,
            since=keeper.since,
            job=job.job if runs else "",
            where=job.where if runs else "",
            reason="" if state is NodeState.ONLINE else self._says() or why,
            starts_at=job.starts_at if state is NodeState.QUEUED else None,
        )
