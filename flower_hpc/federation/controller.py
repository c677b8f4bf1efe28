"""What keeps a federation as it shall be: reads desired.json, writes status.json, speaks to launchers."""

import logging
import os
from collections.abc import Mapping

from ..clock import WALL
from ..errors import FederationError, FlowerHpcError
from ..launchers import Launcher, LocalLauncher
from . import leftovers
from .desired import Desired, Saved
from .identity import ensure_node_key, ensure_tls
from .janitor import Janitor
from .jobs import NodePlan, plan_nodes
from .node import Node
from .registrar import Registrar
from .roster import Roster, roster_for
from .state import OWNER_LOCK, StateDir, write_json
from .status import NodeState, State, Status, SuperLinkStatus
from .superlink import SuperLink

log = logging.getLogger(__name__)

TICK_S = 0.2
SHUTDOWN_S = 10.0


class Controller:
    """Makes reality match what is wished for, a small step at a time.

    Parameters
    ----------
    state : StateDir
        The federation's state folder, with its federation.json and desired.json.
    launchers : mapping of str to Launcher, optional
        By the name that a site gives; default: ``local``.
    """

    def __init__(self, state: StateDir, launchers: Mapping[str, Launcher] | None = None) -> None:
        self.state = state
        self.launchers = launchers if launchers is not None else {"local": LocalLauncher()}
        self.stopping = False
        self._was_ready = False
        self._written: Status | None = None
        self._seen: int | None = None
        self._taken: set[int] = set()
        self._nodes: dict[str, Node] = {}
        self._load()
        if self.config.security == "tls":
            ensure_tls(state, self.config.superlink.host)
        self.superlink = SuperLink(self.config, state, self.launchers["local"])
        self.janitor = Janitor(state)
        self.registrar = Registrar(self.config.name, state, self.launchers["local"])

    def run(self) -> None:
        """Keep the federation until it is asked to stop, then stop all of it."""
        try:
            leftovers.end(self.state)
            self.superlink.keeper.start()
            while not self.stopping:
                self.step()
                WALL.sleep(TICK_S)
        finally:
            self.shutdown()

    def step(self) -> None:
        """Look at everything once."""
        self._look_at_wishes()
        if self._owned and not self.state.held(OWNER_LOCK):
            log.warning("the command that this federation was made for is gone")
            self.stopping = True
        self.stopping = self.stopping or self.desired.stop
        self.superlink.keeper.tick()
        self.janitor.tick()
        self._reconcile()
        self._write()

    def shutdown(self) -> None:
        """Stop the nodes, which sign off, then the SuperLink; what is left after seconds is killed."""
        self.stopping = True
        self.registrar.stop()
        keepers = [node.keeper for node in self._nodes.values()]
        for group in (keepers, [self.superlink.keeper]):
            for keeper in group:
                keeper.stop()
            deadline = WALL.now() + SHUTDOWN_S
            while not all(keeper.stopped for keeper in group) and WALL.now() < deadline:
                for keeper in group:
                    keeper.tick()
                self._write()
                WALL.sleep(TICK_S / 4)
        leftovers.end(self.state)  # the SuperLink's SuperExec and ServerApps have sessions of their own
        self._write()

    def _look_at_wishes(self) -> None:
        try:
            changed = self.state.desired.stat().st_mtime_ns
            if changed != self._seen:
                self._seen = changed
                self._load()
        except (FlowerHpcError, OSError) as error:  # a damaged wish takes nobody's work down
            log.error("the federation stays as it is: %s", error)

    def _load(self) -> None:
        saved = Saved.read(self.state)
        if saved is None:
            raise FederationError(f"{self.state.config} is missing")
        desired = Desired.read(self.state)
        old = Roster.read(self.state.roster)
        if old is not None and not self.state.database.exists():
            old = old.forget_ids()
        self.roster = roster_for(saved.config, old, desired.nodes)
        self.roster.write(self.state.roster)
        self.config, self.desired, self._owned = saved.config, desired, saved.ephemeral

    def _reconcile(self) -> None:
        wanted = plan_nodes(self.config, self.roster, self.desired.nodes, self.superlink.address)
        for name, node in list(self._nodes.items()):
            if name not in wanted and not node.keeper.stopped:
                node.keeper.stop()
            elif name not in wanted:
                del self._nodes[name]
        if self.superlink.keeper.state is NodeState.ONLINE:
            self._register(wanted)
        for name, plan in wanted.items():
            self._want(name, plan)
        for node in self._nodes.values():
            node.keeper.tick()
            self._learn(node)

    def _register(self, wanted: Mapping[str, NodePlan]) -> None:
        if self.config.security == "insecure":
            return
        for name, node_id in self.registrar.results():
            self.roster = self.roster.learn(name, node_id, registered=True)
            self.roster.write(self.state.roster)
        new = [name for name in wanted if not self.roster.members[name].registered]
        for name in new:
            ensure_node_key(self.state.keys, name)
        self.registrar.tick(new)

    def _want(self, name: str, plan: NodePlan) -> None:
        node = self._nodes.get(name)
        if node is None:
            launcher = self.launchers[self.config.sites[plan.site].launcher]
            node = self._nodes[name] = Node(plan, self.state, launcher, self._taken)
        elif node.plan != plan:
            node.plan = plan
            if not node.keeper.stopped:
                log.info("%s is started anew: its settings changed", name)
                node.keeper.restart()
        # without its registration the SuperLink refuses it; without the SuperLink it only waits
        known = self.config.security == "insecure" or self.roster.members[name].registered
        if node.keeper.state in (NodeState.STOPPED, NodeState.STOPPING) and known and self._link_is_up():
            node.keeper.start()

    def _link_is_up(self) -> bool:
        return self.superlink.keeper.state is NodeState.ONLINE

    def _learn(self, node: Node) -> None:
        known = self.roster.members[node.plan.name]
        if node.node_id is not None and node.node_id != known.node_id:
            self.roster = self.roster.learn(node.plan.name, node.node_id, registered=known.registered)
            self.roster.write(self.state.roster)

    def status(self) -> Status:
        """How it is now."""
        waiting = (
            NodeState.STOPPED
            if self.stopping
            else NodeState.FAILED
            if self.registrar.failed
            else NodeState.STARTING
        )
        nodes = tuple(
            node.status(self.roster.members[name].node_id, waiting)
            for name, node in sorted(self._nodes.items(), key=_by_index)
        )
        link = self.superlink.keeper
        wanted = sum(self.desired.nodes.values())
        settled = len(nodes) == wanted and all(node.state is NodeState.ONLINE for node in nodes)
        ready = link.state is NodeState.ONLINE and settled and not self.stopping
        self._was_ready = self._was_ready or ready
        up = State.READY if ready else State.DEGRADED if self._was_ready else State.STARTING
        return Status(
            name=self.config.name,
            state=State.STOPPING if self.stopping else up,
            ready=ready,
            generation=self.desired.generation,
            controller_pid=os.getpid(),
            superlink=SuperLinkStatus(
                state=link.state,
                pid=int(link.job) if link.job else None,
                restarts=link.restarts,
                address=self.superlink.address,
                since=link.since,
            ),
            nodes=nodes,
            wanted=wanted,
        )

    def _write(self) -> None:
        status = self.status()
        if status != self._written:
            write_json(self.state.status, status.to_json())
            self._written = status


def _by_index(item: tuple[str, Node]) -> tuple[str, int]:
    site, _, index = item[0].rpartition("-")
    return site, int(index)
