"""A SuperNode as the controller sees it: its plan, and the keeper of its process."""

import re

from ..launchers import JobSpec, Launcher, LocalLauncher
from .jobs import NodePlan, supernode_job
from .keeper import Keeper
from .ports import free_port
from .state import StateDir
from .status import NodeState, NodeStatus

# printed when the SuperLink's answer to its activation, which sets it online, has come: asking the
# SuperLink instead (`flwr supernode list`) costs 2 s of processor time a question
ONLINE = re.compile(r"SuperNode ID: (\d+)")


class Node:
    """A SuperNode: its plan, and the keeper of its process."""

    def __init__(self, plan: NodePlan, state: StateDir, launcher: Launcher, taken: set[int]) -> None:
        self.plan = plan
        self.node_id: int | None = None
        self.keeper = Keeper(plan.name, launcher, self._spec, self._online)
        self._state, self._taken = state, taken

    def _spec(self) -> JobSpec:
        port = free_port("127.0.0.1", self._taken)
        self._taken.add(port)
        return supernode_job(self.plan, self._state, port)

    def _online(self, job: str) -> bool:
        found = ONLINE.search(self.keeper.launcher.logs(job))
        if found:
            self.node_id = int(found[1])
        return found is not None

    def status(self, node_id: int | None, waiting: NodeState) -> NodeStatus:
        """How it is; ``waiting`` where it waits for the SuperLink or its registration."""
        keeper = self.keeper
        return NodeStatus(
            name=self.plan.name,
            site=self.plan.site,
            state=waiting if keeper.stopped else keeper.state,
            pid=int(keeper.job) if keeper.job and isinstance(keeper.launcher, LocalLauncher) else None,
            restarts=keeper.restarts,
            node_id=node_id,
            partition=self.plan.partition,
            since=keeper.since,
        )
