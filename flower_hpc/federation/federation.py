"""A federation as its user sees it: load, up, status, scale, down, from any shell."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError, FederationError, LaunchError
from ..launchers.supernode_log import last_line
from .config import FederationConfig
from .desired import Desired
from .fetching import fetch
from .fields import Scalar
from .planning import check, plan, warnings
from .roster import Roster, names_of
from .scaling import scale
from .starting import converge, launch, let_it_stop, request, revive, start
from .state import CONTROLLER_LOCK, OWNER_LOCK, StateDir, home
from .status import State, Status
from .stopping import forget, stop
from .waiting import Progress, reported, tail, unattended, wait_until_ready
from .which import DEFAULT_FILE, config_of, the_one_that_is_up


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
        self._ends_only_its_own = False

    # -- which one ---------------------------------------------------------------------------------

    @classmethod
    def load(cls, which: str | Path) -> "Federation":
        """A federation.yaml, or the name of a federation that was up before.

        Raises
        ------
        ConfigError
            No such file or name, or something is wrong in the file; one line.
        """
        config, ephemeral = config_of(which)
        return kind_of(config)(config, ephemeral=ephemeral)

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
        return cls.load(the_one_that_is_up())

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
        made = cls(FederationConfig.parse(data, "federation"), ephemeral=True)
        made._ends_only_its_own = True
        return made

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
    def hint(self) -> str:
        """How Flower's own commands reach it."""
        return f"Flower's own commands reach it so: flower-hpc flwr -- run APP {self.connection}"

    @property
    def warnings(self) -> list[str]:
        """What its user should know before it is brought up."""
        return warnings(self.config)

    def check(self) -> None:
        """Refuse what cannot work here, before anything is started: ConfigError in one line."""
        check(self.config, is_up=self.is_up())

    def is_up(self) -> bool:
        """Whether its controller lives."""
        return self._state.held(CONTROLLER_LOCK)

    def status(self) -> Status:
        """How it is now, whichever shell brought it up."""
        if self.is_up():
            return reported(self._state) or Status(name=self.name, state=State.STARTING)
        return unattended(self._state, self.config)

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
        try:
            self.fetch_log(node)
        except LaunchError:
            if not path.exists():  # else: what was fetched last
                raise
        if not path.exists():
            raise FederationError(f"{node} has no log yet: federation {self.name} was not up with it")
        return path

    def fetch_log(self, node: str) -> bool:
        """Bring the log of a node up to date whose platform keeps it; False for all others.

        Raises
        ------
        LaunchError
            It cannot be had.
        """
        return fetch(self._state, node)

    def plan(self) -> list[dict[str, str]]:
        """What :meth:`up` would start: ``name`` and ``command`` of each process; starts and makes nothing."""
        self.check()
        return plan(self.config, self._state)

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
        self.check()
        self._state.create()
        let_it_stop(self._state)
        with self._state.cli_lock():
            fresh = not self.is_up()
            if fresh and self._ephemeral:
                forget(self._state)
                self._state.create()
                self._owner = self._owner or self._state.hold(OWNER_LOCK)
            begin = start if fresh else converge
            wish = begin(self._state, self.config, ephemeral=self._ephemeral)
        try:
            return wait_until_ready(self._state, wish.generation, progress, timeout_s)
        except BaseException:
            if fresh:
                self.down()
            raise

    def up_once(self) -> Status:
        """See to what is missing, once, and leave no controller behind: for a cron job.

        Raises
        ------
        ConfigError, FederationError
            As :meth:`up`; FederationError too where the controller ends with an error.
        """
        self.check()
        self._state.create()
        with self._state.cli_lock():
            if self.is_up():
                return self.status()
            request(self._state, self.config)
            if launch(self._state, "--once"):
                words = last_line(tail(self._state, "controller"))
                raise FederationError(f"federation {self.name} could not be seen to: {words}")
        return reported(self._state) or self.status()

    def revive(self) -> bool:
        """Where its controller was killed, start one that takes over what runs; whether it is up now."""
        return revive(self._state)

    def scale(self, site: str, nodes: int, timeout_s: float = 120) -> Status:
        """Give ``site`` that many nodes (0 or more); returns when they are online, or gone.

        Raises
        ------
        ConfigError
            No such site, a negative number, more nodes than partitions, or than its autoscale or the budget
            allow.
        FederationError
            The federation is not up, or not ready in ``timeout_s`` seconds (default 120).
        """
        wish = scale(self._state, site, nodes)
        return wait_until_ready(self._state, wish.generation, None, timeout_s)

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
        # one of this name may run, but another process made it
        if (self._ends_only_its_own and self._owner is None) or not self._state.path.is_dir():
            return False
        with self._state.cli_lock():
            was_up = stop(self._state, timeout_s)
            if self._ephemeral:
                forget(self._state)
                if self._owner is not None:
                    os.close(self._owner)
                    self._owner = None
        return was_up


def kind_of(config: FederationConfig) -> type[Federation]:
    """Which class keeps it: where the SuperLink is a pod, most is asked there."""
    from .cluster import ClusterFederation

    return ClusterFederation if config.in_cluster else Federation
