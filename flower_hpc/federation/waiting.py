"""Wait for a federation to be as wished, and say why it is not."""

import time
from collections.abc import Callable

from ..errors import FederationError
from ..launchers.supernode_log import last_line
from ..launchers.tail import tail as end_of
from . import leftovers
from .config import FederationConfig
from .roster import Roster, names_of, site_of
from .state import CONTROLLER_LOCK, PROCESSES, StateDir, read_json
from .status import NodeState, NodeStatus, State, Status

POLL_S = 0.1
TAIL_BYTES = 65536

Progress = Callable[[Status], None]


def reported(state: StateDir) -> Status | None:
    """What the controller wrote last; None where it wrote nothing yet, or what lies there is damaged."""
    try:
        data = read_json(state.status)
        return None if data is None else Status.model_validate(data)
    except (FederationError, ValueError):
        return None  # the controller replaces a damaged one at its next change


def unattended(state: StateDir, config: FederationConfig) -> Status:
    """How a federation without a controller is: what one wrote last, where something of it may still run."""
    last = reported(state)
    if last is not None and (leftovers.find(state) or has_jobs(state)):
        return last.model_copy(update={"state": State.ORPHANED, "ready": False, "controller_pid": None})
    members = roster.members if (roster := Roster.read(state.roster)) is not None else {}
    nodes = tuple(
        NodeStatus(
            name=node,
            site=site_of(node),
            state=NodeState.STOPPED,
            node_id=members[node].node_id,
            partition=members[node].partition,
            since=state.roster.stat().st_mtime,
        )
        for node in names_of(config.counts)
        if node in members
    )
    return Status(name=config.name, state=State.DOWN, nodes=nodes)


def has_jobs(state: StateDir) -> bool:
    """Whether a batch system may still have jobs of a federation."""
    paths = [path for path in state.jobs.glob("*.json") if path.name != PROCESSES]
    return any(read_json(path) for path in paths)


def wait_until_ready(state: StateDir, generation: int, progress: Progress | None, timeout_s: float) -> Status:
    """The first status that is ready and knows of the wish ``generation``.

    After ``timeout_s`` seconds also one in which all that is not online waits in a batch system's queue.

    Raises
    ------
    FederationError
        The controller ended, a node cannot start, or it took longer than ``timeout_s`` seconds.
    """
    deadline, status = time.monotonic() + timeout_s, None
    while time.monotonic() < deadline:
        if not state.held(CONTROLLER_LOCK):
            words = last_line(tail(state, "controller"))
            raise FederationError(f"federation {state.path.name} ended while it was waited for: {words}")
        new = reported(state)
        if new is not None and new.generation >= generation:
            if progress is not None and new != status:
                progress(new)
            status = new
            if status.ready:
                return status
            if status.has_failed:
                raise FederationError(complaint(state, "cannot start", status))
        time.sleep(POLL_S)
    if status is not None and status.only_queued:
        return status  # how long a batch system lets wait is no failure
    raise FederationError(complaint(state, f"is not ready after {timeout_s:g} s", status))


def complaint(state: StateDir, what: str, status: Status | None) -> str:
    """One line: which nodes are not online, and the last words of the first of them."""
    start = f"federation {state.path.name} {what}"
    if status is None:
        return f"{start}: controller said: {last_line(tail(state, 'controller'))}"
    if status.superlink is None or status.superlink.state is not NodeState.ONLINE:
        told = status.superlink.reason if status.superlink is not None else ""
        said = told or f"it said: {last_line(tail(state, 'superlink'))}"
        return f"{start}: the SuperLink is not online; {said}"
    bad = [node for node in status.nodes if node.state is not NodeState.ONLINE]
    if not bad:
        return start
    names = ", ".join(node.name for node in bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
    first = next((node for node in bad if node.state is NodeState.FAILED), bad[0])
    if first.reason:
        return f"{start}: not online: {names}; {first.name}: {first.reason}"
    log = first.name if first.restarts or first.pid else "controller"
    return f"{start}: not online: {names}; {log} said: {last_line(tail(state, log))}"


def tail(state: StateDir, name: str) -> str:
    """The end of a log, of what was written since the last start; empty where there is none."""
    return end_of(state.log(name), TAIL_BYTES)
