"""What the controller knows, as the status that commands print."""

import os
from collections import Counter
from typing import TYPE_CHECKING

from .handed_site import HandedSite
from .node import Node
from .status import NodeState, NodeStatus, State, Status, SuperLinkStatus

if TYPE_CHECKING:
    from .controller import Controller


def report(controller: "Controller") -> Status:
    """How the federation is now."""
    waiting = (
        NodeState.STOPPED
        if controller.stopping
        else NodeState.FAILED
        if controller.registrar.failed
        else NodeState.STARTING
    )
    why = _what_is_waited_for(controller)
    nodes = tuple(
        node.status(controller.roster.members[name].node_id, waiting, why)
        for name, node in sorted(controller.nodes.items(), key=_by_index)
    )
    link = controller.superlink.keeper
    wanted = sum(controller.counts.values())
    settled = len(nodes) == wanted and not _missed(controller, nodes)
    ready = link.state is NodeState.ONLINE and settled and not controller.stopping
    controller.was_ready = controller.was_ready or ready
    up = State.READY if ready else State.DEGRADED if controller.was_ready else State.STARTING
    return Status(
        name=controller.config.name,
        state=State.STOPPING if controller.stopping else up,
        ready=ready,
        generation=controller.desired.generation,
        controller_pid=os.getpid(),
        superlink=SuperLinkStatus(
            state=link.state,
            pid=link.status.pid if link.job is not None else None,
            restarts=link.restarts,
            address=controller.superlink.address,
            since=link.since,
            job=link.status.job if link.job is not None else "",
            where=link.status.where if link.job is not None else "",
            reason="" if link.state is NodeState.ONLINE else link.reason,
        ),
        nodes=nodes,
        wanted=wanted,
        elastic=controller.scaler.extra(controller.config, controller.desired),
        lent=dict(controller.scaler.memory.lent),
        usd_per_hour=controller.scaler.usd_per_hour(controller.config, controller.desired),
        decision=controller.scaler.last,
        trouble=controller.launchers.trouble,
    )


def _missed(controller: "Controller", nodes: tuple[NodeStatus, ...]) -> bool:
    """Whether a node is not online that is ours to start, and none stands in for it."""
    lent, sites = controller.scaler.memory.lent, controller.config.sites
    theirs = {node.name for node in nodes if node.job and isinstance(sites.get(node.site), HandedSite)}
    away = Counter(
        node.site for node in nodes if node.state is not NodeState.ONLINE and node.name not in theirs
    )
    return any(count > lent.get(site, 0) for site, count in away.items())


def _what_is_waited_for(controller: "Controller") -> str:
    if controller.superlink.keeper.state is not NodeState.ONLINE:
        return "waits for the SuperLink"
    if not controller.door.is_open:
        closed = [k for k in controller.door.keepers.values() if k.state is not NodeState.ONLINE]
        return f"waits for the {closed[0].name}" + (
            f": {closed[0].last_words}" if closed[0].last_words else ""
        )
    return "waits for its registration"


def _by_index(item: tuple[str, Node]) -> tuple[str, int]:
    site, _, index = item[0].rpartition("-")
    return site, int(index)
