"""A federation as its user sees it: load, up, status, scale, down, from any shell."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError, FederationError
from ..launchers import LocalLauncher
from . import leftovers
from .config import FederationConfig, Scalar
from .desired import Desired, Saved
from .jobs import plan_nodes, superlink_job, supernode_job
from .keeper import last_line
from .roster import Roster, names_of, roster_for
from .state import CONTROLLER_LOCK, OWNER_LOCK, StateDir, home, read_json
from .status import NodeState, NodeStatus, State, Status
from .superlink import check_port

DEFAULT_FILE = "federation.yaml"
POLL_S = 0.1
KEPT = ("logs", "runs", "cli.lock", OWNER_LOCK)
"""What stays of an ephemeral federation."""

Progress = Callable[[Status], None]


class Federation:
    """A federation: its config, and its state folder; making one touches nothing.

    Parameters
    ----------
    config : FederationConfig
        What it shall be.
    ephemeral : bool
        Whether it ends with the process that brought it up, and leaves only logs and runs; default False.
    """

    def __init__(self, config: FederationConfig, *, ephemeral: bool = False) -> None:
        self.config, self._ephemeral = config, ephemeral
        self._state = StateDir(home() / config.name)
        self._owner: int | None = None

    # -- which one ---------------------------------------------------------------------------------

    @classmethod
    def load(cls, which: str | Path) -> "Federation":
        """A federation.yaml, or the name of a federation that was up before.

        Raises
        ------
        ConfigError
            No such file or name, or something is wrong in the file; one line.
        """
        path = Path(which)
        if isinstance(which, Path) or path.is_file() or os.sep in which or path.suffix in (".yaml", ".yml"):
            return cls(FederationConfig.load(path))
        known = _known()
        if which not in known:
            words = ", ".join(known) or "none yet"
            raise ConfigError(f"federation must be a file or the name of one of: {words}; got {which!r}")
        saved = Saved.read(StateDir(home() / which))
        if saved is None:
            raise ConfigError(f"federation {which!r} was never up: give its file")
        return cls(saved.config, ephemeral=saved.ephemeral)

    @classmethod
    def find(cls, which: str | None = None) -> "Federation":
        """What the user means: ``which``, else ./federation.yaml, else the one federation that is up.

        Raises
        ------
        ConfigError
            Nothing is meant, or more than one could be.
        """
        if which is not None:
            return cls.load(which)
        if Path(DEFAULT_FILE).is_file():
            return cls.load(Path(DEFAULT_FILE))
        up = [name for name in _known() if StateDir(home() / name).held(CONTROLLER_LOCK)]
        if len(up) == 1:
            return cls.load(up[0])
        found = f"{len(up)} are up: {', '.join(up)}" if up else "none is up"
        raise ConfigError(f"which federation? no {DEFAULT_FILE} here, and {found}; give a file or a name")

    @classmethod
    def ephemeral(
        cls,
        nodes: int = 10,
        name: str | None = None,
        node_configs: Mapping[int, Mapping[str, Scalar]] | None = None,
        data_dir: Path | None = None,
    ) -> "Federation":
        """One on this machine without a file, which ends with this process at the latest.

        Parameters
        ----------
        nodes : int
            How many; default 10.
        name : str, optional
            Default: a new one.
        node_configs : mapping, optional
            More node-config by the index of the node; default none.
        data_dir : Path, optional
            Handed to the nodes as ``data-dir``; default none.

        Raises
        ------
        ConfigError
            A value that is not allowed.
        """
        per_node = {f"here-{index}": dict(extra) for index, extra in (node_configs or {}).items()}
        site: dict[str, Any] = {"nodes": nodes, "per_node": per_node}
        if data_dir is not None:
            site["data_dir"] = str(data_dir)
        data = {"name": name or f"local-{secrets.token_hex(4)}", "sites": {"here": site}}
        return cls(FederationConfig.parse(data, "federation"), ephemeral=True)

    # -- what it is --------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Its name."""
        return self.config.name

    @property
    def connection(self) -> str:
        """The connection of ``flwr``, with ``FLWR_HOME=<state_dir>/flwr``."""
        return self.config.name

    @property
    def state_dir(self) -> Path:
        """The folder with its keys, logs, runs and database."""
        return self._state.path

    @property
    def num_nodes(self) -> int:
        """How many nodes it has: those wanted now while it is up, else those of the config."""
        counts = Desired.read(self._state).nodes if self.is_up() else self.config.counts
        return sum(counts.values())

    @property
    def warnings(self) -> list[str]:
        """What its user should know before it is brought up."""
        found = []
        if self.config.security == "insecure":
            found.append(
                "security: insecure: no TLS, no node keys: who reaches the SuperLink can join and submit runs"
            )
        if leftovers.shared_host():
            found.append(
                "other people use this host and its loopback is open to them: who finds the ports can try "
                "to send work that runs as you; prefer a machine or a job of your own"
            )
        return found

    def is_up(self) -> bool:
        """Whether its controller lives."""
        return self._state.held(CONTROLLER_LOCK)

    def status(self) -> Status:
        """How it is now, whichever shell brought it up."""
        if self.is_up():
            return self._reported() or Status(name=self.name, state=State.STARTING)
        state = State.ORPHANED if leftovers.find(self._state) else State.DOWN
        roster = Roster.read(self._state.roster)
        members = roster.members if roster is not None else {}
        nodes = tuple(
            NodeStatus(
                name=node,
                site=node.rpartition("-")[0],
                state=NodeState.STOPPED,
                node_id=members[node].node_id,
                partition=members[node].partition,
                since=self._state.roster.stat().st_mtime,
            )
            for node in names_of(self.config.counts)
            if node in members
        )
        return Status(name=self.name, state=state, nodes=nodes)

    def log_path(self, node: str) -> Path:
        """The log of a node, of ``superlink`` (ServerApps write there too) or of ``controller``.

        Raises
        ------
        ConfigError
            No such node.
        FederationError
            It wrote nothing yet.
        """
        roster = Roster.read(self._state.roster)
        names = ["superlink", "controller", *(roster.members if roster else names_of(self.config.counts))]
        if node not in names:
            raise ConfigError(f"node must be one of: {', '.join(names)}; got {node!r}")
        path = self._state.log(node)
        if not path.exists():
            raise FederationError(f"{node} has no log yet: federation {self.name} was not up with it")
        return path

    def plan(self) -> list[dict[str, str]]:
        """What :meth:`up` would start: ``name`` and ``command`` of each process; starts and makes nothing."""
        self._check()
        roster = roster_for(self.config, Roster.read(self._state.roster), self.config.counts)
        link, launcher, free = self.config.superlink, LocalLauncher(), "FREE_PORT"
        address = f"{link.host}:{link.port or free}"
        jobs = [superlink_job(self.config, self._state, link.port or free)]
        plans = plan_nodes(self.config, roster, self.config.counts, address)
        jobs += [supernode_job(plan, self._state, free) for plan in plans.values()]
        return [{"name": job.name, "command": launcher.render(job)} for job in jobs]

    # -- changing it -------------------------------------------------------------------------------

    def up(self, progress: Progress | None = None, timeout_s: float = 120) -> Status:
        """Bring it up, or make the one that is up match the config; returns when all nodes are online.

        Parameters
        ----------
        progress : callable, optional
            Called with each new status.
        timeout_s : float
            Seconds until it must be ready; default 120.

        Raises
        ------
        ConfigError
            A taken port, more nodes than partitions, or one of this name that differs in what cannot change.
        FederationError
            Not ready in time, or a node that cannot start: with its last words. What this call started is
            taken down again, as it is on Ctrl-C.
        """
        self._check()
        self._state.create()
        self._wait_for_stop()
        with self._state.cli_lock():
            fresh = not self.is_up()
            wish = self._start() if fresh else self._converge()
        try:
            return self._wait(wish.generation, progress, timeout_s)
        except BaseException:
            if fresh:
                self.down()
            raise

    def scale(self, site: str, nodes: int, timeout_s: float = 120) -> Status:
        """Give ``site`` that many nodes (0 or more); returns when they are online, or gone.

        Raises
        ------
        ConfigError
            No such site, a negative number, or more nodes than partitions.
        FederationError
            The federation is not up, or not ready in ``timeout_s`` seconds (default 120).
        """
        saved = Saved.read(self._state) if self.is_up() else None
        if saved is None:
            raise FederationError(f"federation {self.name} is not up")
        if site not in saved.config.sites:
            raise ConfigError(f"site must be one of: {', '.join(saved.config.sites)}; got {site!r}")
        if nodes < 0:
            raise ConfigError(f"nodes must be an integer >= 0, got {nodes}")
        with self._state.cli_lock():
            old = Desired.read(self._state)
            counts = dict(old.nodes) | {site: nodes}
            roster_for(saved.config, Roster.read(self._state.roster), counts)
            wish = Desired(generation=old.generation + 1, nodes=counts, stop=old.stop)
            wish.write(self._state)
        return self._wait(wish.generation, None, timeout_s)

    def down(self, timeout_s: float = 30) -> bool:
        """Stop all of it, and what an earlier controller left; keys, names, partitions and runs are kept.

        Parameters
        ----------
        timeout_s : float
            Seconds that the controller gets before it is killed and cleaned up after; default 30.

        Returns
        -------
        bool
            Whether there was anything to stop.
        """
        if self._ephemeral and self._owner is None and self.is_up():
            return False  # another process made it: it is not ours to end
        if not self._state.path.is_dir():
            return False
        was_up = self.is_up()
        with self._state.cli_lock():
            if was_up:
                old = Desired.read(self._state)
                Desired(generation=old.generation + 1, nodes=old.nodes, stop=True).write(self._state)
            if not self._gone(timeout_s):
                self._kill_controller()
            left = leftovers.end(self._state)
            self._state.status.unlink(missing_ok=True)
            if self._ephemeral:
                self._forget()
        return was_up or left > 0

    # -- how ---------------------------------------------------------------------------------------

    def _check(self) -> None:
        for name, site in self.config.sites.items():
            if site.data_dir is not None and not Path(site.data_dir).is_dir():
                raise ConfigError(
                    f"sites.{name}.data_dir: got {site.data_dir!r}, must be a folder that exists"
                )
        if not self.is_up():
            check_port(self.config)

    def _start(self) -> Desired:
        if self._ephemeral:
            self._forget()
            self._owner = self._state.hold(OWNER_LOCK)
        roster_for(self.config, Roster.read(self._state.roster), self.config.counts)
        self._state.status.unlink(missing_ok=True)
        Saved(config=self.config, ephemeral=self._ephemeral).write(self._state)
        try:
            generation = Desired.read(self._state).generation + 1
        except FederationError:  # it is replaced anyway
            generation = int(time.time())
        wish = Desired(generation=generation, nodes=self.config.counts)
        wish.write(self._state)
        command = [sys.executable, "-m", f"{__package__}.daemon", str(self.state_dir)]
        with self._state.log("controller").open("ab") as log:
            # it goes to the background by itself, and returns when it holds the lock
            subprocess.run(
                command,
                cwd=self.state_dir,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                check=False,
            )
        return wish

    def _converge(self) -> Desired:
        saved = Saved.read(self._state)
        if saved is None:
            raise FederationError(f"{self._state.config} is missing: take the federation down")
        if self._ephemeral or saved.ephemeral:
            raise ConfigError(
                f"name: got {self.name!r}, must be another: a federation of that name is running"
            )
        for what in ("security", "superlink"):
            was, now = getattr(saved.config, what), getattr(self.config, what)
            if was != now:
                raise ConfigError(
                    f"{what}: got {now}, must be {was} while federation {self.name} is up: take it down first"
                )
        roster_for(self.config, Roster.read(self._state.roster), self.config.counts)
        old = Desired.read(self._state)
        Saved(config=self.config).write(self._state)
        wish = Desired(generation=old.generation + 1, nodes=self.config.counts)
        wish.write(self._state)
        return wish

    def _wait(self, generation: int, progress: Progress | None, timeout_s: float) -> Status:
        deadline, status = time.monotonic() + timeout_s, None
        while time.monotonic() < deadline:
            if not self.is_up():
                words = last_line(self._tail("controller"))
                raise FederationError(f"federation {self.name} ended while it was waited for: {words}")
            new = self._reported()
            if new is not None and new.generation >= generation:
                if progress is not None and new != status:
                    progress(new)
                status = new
                if status.ready:
                    return status
                if any(node.state is NodeState.FAILED for node in status.nodes):
                    raise FederationError(self._complaint("cannot start", status))
            time.sleep(POLL_S)
        raise FederationError(self._complaint(f"is not ready after {timeout_s:g} s", status))

    def _complaint(self, what: str, status: Status | None) -> str:
        link = status.superlink if status is not None else None
        if status is None or link is None or link.state is not NodeState.ONLINE:
            words = last_line(self._tail("superlink" if status is not None else "controller"))
            return f"federation {self.name} {what}: the SuperLink is not online: {words}"
        bad = [node.name for node in status.nodes if node.state is not NodeState.ONLINE]
        if not bad:
            return f"federation {self.name} {what}"
        failed = [node.name for node in status.nodes if node.state is NodeState.FAILED]
        first = (failed or bad)[0]
        names = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
        log = first if self._state.log(first).exists() else "controller"
        return f"federation {self.name} {what}: not online: {names}; {log} said: {last_line(self._tail(log))}"

    def _tail(self, name: str) -> str:
        path = self._state.log(name)
        return path.read_bytes()[-65536:].decode(errors="replace") if path.exists() else ""

    def _reported(self) -> Status | None:
        try:
            data = read_json(self._state.status)
            return None if data is None else Status.model_validate(data)
        except (FederationError, ValueError):
            return None  # the controller replaces a damaged one at its next change

    def _wait_for_stop(self, timeout_s: float = 30) -> None:
        deadline = time.monotonic() + timeout_s
        while self.is_up() and self._stop_wanted() and time.monotonic() < deadline:
            time.sleep(POLL_S)

    def _stop_wanted(self) -> bool:
        try:
            return Desired.read(self._state).stop
        except FederationError:
            return False

    def _gone(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while self.is_up():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S / 2)
        return True

    def _kill_controller(self) -> None:
        words = (self._state.path / CONTROLLER_LOCK).read_text().strip()
        if words.isdigit() and self.is_up():
            os.kill(int(words), signal.SIGKILL)
            self._gone(5)

    def _forget(self) -> None:
        for path in self._state.path.iterdir():
            if path.name in KEPT:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        self._state.create()


def _known() -> list[str]:
    return sorted(path.parent.name for path in home().glob("*/federation.json"))
