"""What keeps a federation as it shall be: reads desired.json, writes status.json, speaks to launchers."""

import logging
from collections.abc import Mapping

from ..clock import WALL
from ..errors import FederationError, FlowerHpcError
from ..launchers import Found, JobState, Launcher
from . import leftovers
from .config import FederationConfig
from .desired import Desired, Saved
from .door import Door, furnish, take_down
from .facts import Facts
from .hearing import Hearing
from .identity import ensure_node_key, ensure_tls
from .janitor import Janitor
from .jobs import NodePlan, plan_nodes
from .keeper import Keeper
from .launching import Launchers, end_offloaded
from .node import Node
from .reaper import Adopted
from .registrar import Registrar
from .reporting import report
from .roster import Roster, names_of, roster_for
from .scaler import Scaler
from .state import OWNER_LOCK, StateDir, write_json
from .status import NodeState, Status
from .withdrawing import Withdrawing

log = logging.getLogger(__name__)

TICK_S = 0.2
SHUTDOWN_S, BATCH_SHUTDOWN_S = 10.0, 60.0
SETTLE_S = 300.0


class Controller:
    """Makes reality match what is wished for, a small step at a time.

    Parameters
    ----------
    state : StateDir
        The federation's state folder, with its federation.json and desired.json.
    launchers : Launchers, optional
        Default: those that the sites name.
    """

    def __init__(self, state: StateDir, launchers: Launchers | None = None) -> None:
        self.state = state
        self.launchers = launchers or Launchers(state)
        self.stopping = False
        self.leaving = False
        """Whether it shall end and let the sites beyond this machine go on."""
        self.was_ready = False
        self._written: Status | None = None
        self._seen: int | None = None
        self.nodes: dict[str, Node] = {}
        self._found: dict[Launcher, dict[str, Found]] = {}
        self.scaler = Scaler(state)
        self._load()
        if self.config.tls:
            ensure_tls(state, self.config.superlink.host)
        here = self.launchers.here
        self.facts = Facts(state.path)
        self.heard = Hearing(state)
        self.superlink = self.launchers.superlink(self.config)
        self.door = Door(self.config, state, here)
        self.janitor, self.adopted = Janitor(state), Adopted()
        self.withdrawing = Withdrawing(state)
        self.registrar = Registrar(self.config.name, state, here)

    def run(self) -> None:
        """Keep the federation until it is asked to stop, then stop all of it; or to leave."""
        try:
            self.begin()
            while not (self.stopping or self.leaving):
                self.step()
                self.adopted.tick()
                WALL.sleep(TICK_S)
        finally:
            if self.leaving and not self.stopping:
                self.leave()
            else:
                self.shutdown()

    def once(self, timeout_s: float = SETTLE_S) -> None:
        """Bring all that is missing on its way, and leave it to itself: for a cron job.

        Returns when every node is online, or waits in a queue, or failed; after ``timeout_s`` in any case.
        """
        self.begin()
        deadline = WALL.now() + timeout_s
        while not self.stopping and WALL.now() < deadline:
            self.step()
            done = (NodeState.ONLINE, NodeState.QUEUED, NodeState.FAILED)
            keepers = [node.keeper for node in self.nodes.values()]
            # a job without an id is still being handed over
            settled = [k.state in done and bool(k.status.job or k.job is None) for k in keepers]
            if len(settled) == sum(self.counts.values()) and all(settled):
                break
            WALL.sleep(TICK_S)
        if self.stopping:
            self.shutdown()
        else:
            self.launchers.close()

    def begin(self) -> None:
        """Take over what an earlier controller left, and end what nobody will watch."""
        self._adopt(self.launchers.here)
        for name in self.config.sites:
            self._adopt(self.launchers.of(self.config, name))
        self._adopt(self.superlink.keeper.launcher)
        self._start(self.superlink.keeper)
        wanted = {*names_of(self.counts), *self.door.names()}
        for launcher, found in self._found.items():
            for name in set(found) - wanted:
                launcher.cancel(found.pop(name).job_id, force=launcher is self.launchers.here)
        kept = {int(found.job_id) for found in self._found[self.launchers.here].values()}
        if self.superlink.keeper.job is not None and not self.config.link_elsewhere:
            kept.add(int(self.superlink.keeper.job))
        leftovers.end(self.state, spare=kept)

    def step(self) -> None:
        """Look at everything once."""
        self._look_at_wishes()
        if self._owned and not self.state.held(OWNER_LOCK):
            log.warning("the command that this federation was made for is gone")
            self.stopping = True
        self.stopping = self.stopping or self.desired.stop
        self.superlink.keeper.tick()
        self.janitor.tick()
        self._rescale()
        self._reconcile()
        self._write()

    def shutdown(self) -> None:
        """Stop the nodes, which sign off, then the SuperLink; what is left after seconds is killed."""
        self.stopping = True
        self.registrar.stop()
        take_down(self.config, self.state)
        self._stop([node.keeper for node in self.nodes.values()], self.superlink.keeper)
        for name, words in self.launchers.take_down().items():
            log.error("sites.%s: not all of it is gone: %s", name, words)
        self.launchers.close()
        end_offloaded(self.config, self.state)
        leftovers.end(self.state)  # the SuperLink's SuperExec and ServerApps have sessions of their own
        self._write()

    def leave(self) -> None:
        """End what runs on this machine; nodes beyond it go on, for the controller that comes next."""
        self.registrar.stop()
        link = [] if self.config.link_elsewhere else [self.superlink.keeper]
        self._stop([node.keeper for node in self.nodes.values() if node.plan.here], *link)
        self.launchers.close()
        leftovers.end(self.state)

    def _stop(self, nodes: list[Keeper], *link: Keeper) -> None:
        patience = BATCH_SHUTDOWN_S if self.launchers.patient else SHUTDOWN_S
        for group, seconds in ((nodes, patience), ([*self.door.keepers.values(), *link], SHUTDOWN_S)):
            for keeper in group:
                keeper.stop()
            deadline = WALL.now() + seconds
            while not all(keeper.stopped for keeper in group) and WALL.now() < deadline:
                for keeper in group:
                    keeper.tick()
                self._write()
                WALL.sleep(TICK_S / 4)

    def _adopt(self, launcher: Launcher) -> None:
        if launcher not in self._found:
            self._found[launcher] = dict(launcher.adopt())

    def _start(self, keeper: Keeper) -> None:
        found = self._found.setdefault(keeper.launcher, {}).pop(keeper.name, None)
        if found is None or not keeper.take_over(found):
            keeper.start()

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
        if old is not None and not (saved.config.link_elsewhere or self.state.database.exists()):
            old = old.forget_ids()
        self._size(saved.config, old, self.scaler.counts(saved.config, desired, old))
        self.config, self.desired, self._owned = saved.config, desired, saved.ephemeral

    def _size(self, config: FederationConfig, old: Roster | None, counts: dict[str, int]) -> None:
        self.roster, self.counts = roster_for(config, old, counts), counts
        self.roster.write(self.state.roster)

    def _rescale(self) -> None:
        counts = self.scaler.tick(self.config, self.desired, self.roster, self.nodes)
        if counts is not None:
            self._size(self.config, self.roster, counts)

    def _reconcile(self) -> None:
        link, gateway = self.superlink.link, self.door.here
        wanted = plan_nodes(self.config, self.roster, self.counts, self.state, link, gateway)
        for name, node in list(self.nodes.items()):
            if name not in wanted and not node.keeper.stopped:
                node.keeper.stop()
            elif name not in wanted:
                del self.nodes[name]
                self.facts.tell(name, JobState.CANCELLED, "it is wanted no longer")
        if self.config.tls:
            self.withdrawing.tick(self.config, self.roster.members, wanted)
        if self._link_is_up():
            self._forget_with(self.superlink.keeper.job)
            self._register(wanted)
            self.door.config = self.config
            self.door.tick(self.superlink.link, self._start, self.superlink.gateway)
        self.janitor.nodes |= {plan.folder / "nodes" for plan in wanted.values() if plan.folder is not None}
        for name, plan in wanted.items():
            self._want(name, plan)
        for node in self.nodes.values():
            node.tick()
            self._learn(node)

    def _forget_with(self, job: str | None) -> None:
        # what a SuperLink that was a job knew is gone with it
        if self.config.link_elsewhere and job != self.roster.told:
            known = self.roster.told is not None
            self.roster = (self.roster.forget_ids() if known else self.roster).tell(job)
            self.roster.write(self.state.roster)
            for node in self.nodes.values():
                node.signs_on_anew()

    def _register(self, wanted: Mapping[str, NodePlan]) -> None:
        if not self.config.tls:
            return
        for name, node_id in self.registrar.results():
            self.roster = self.roster.learn(name, node_id, registered=True)
            self.roster.write(self.state.roster)
        new = [name for name in wanted if not self.roster.members[name].registered]
        for name in new:
            ensure_node_key(self.state.keys, name)
        self.registrar.tick(new, self.superlink.link)

    def _want(self, name: str, plan: NodePlan) -> None:
        node = self.nodes.get(name)
        if node is None:
            node = self.nodes[name] = self._new(plan)
        elif node.plan != plan:
            node.plan = plan
            if not node.keeper.stopped:
                log.info("%s is started anew: its settings changed", name)
                node.keeper.restart()
        # without its registration the SuperLink refuses it; without the SuperLink it only waits
        known = not self.config.tls or self.roster.members[name].registered
        ready = known and self._link_is_up() and (self.door.is_open or self._needs_no_door(plan))
        if node.keeper.state in (NodeState.STOPPED, NodeState.STOPPING) and ready:
            self._start(node.keeper)

    def _new(self, plan: NodePlan) -> Node:
        launcher = self.launchers.of(self.config, plan.site)
        self._adopt(launcher)

        def prepare() -> None:
            if not plan.here:
                furnish(self.config, self.state, plan.site, plan.name)

        return Node(plan, self.state, launcher, self.facts, prepare, self.heard)

    def _needs_no_door(self, plan: NodePlan) -> bool:
        return plan.here and plan.link == self.superlink.link.endpoint

    def _link_is_up(self) -> bool:
        return self.superlink.keeper.state is NodeState.ONLINE

    def _learn(self, node: Node) -> None:
        known = self.roster.members[node.plan.name]
        if node.node_id is not None and node.node_id != known.node_id:
            self.roster = self.roster.learn(node.plan.name, node.node_id, registered=known.registered)
            self.roster.write(self.state.roster)

    def _write(self) -> None:
        status = report(self)
        if status != self._written:
            write_json(self.state.status, status.to_json())
            self._written = status
