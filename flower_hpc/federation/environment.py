"""The environment of a federation's processes: what all of them see, and what nodes see beside that."""

import os
from pathlib import Path

from ..cores import cores
from ..launchers.warm import PACKAGES, WARM_ENV
from ..protocol import STATE_ENV
from .flwr_cli import QUIET
from .site import Site
from .state import OWNER_ENV, StateDir

POLL_S = "0.2"  # Flower's default of 1 s is a second of every message


def environment(state: StateDir, flwr_home: Path) -> dict[str, str]:
    """Of every process of this machine."""
    # the loopback is never behind a proxy, whatever the site's environment says of others
    direct = ",".join(
        filter(None, (os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), "127.0.0.1,::1"))
    )
    return {
        **QUIET,
        "FLWR_HOME": str(flwr_home),
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": POLL_S,
        "NO_PROXY": direct,
        "no_proxy": direct,
        "PYTHONUNBUFFERED": "1",
        STATE_ENV: str(state.path),
        OWNER_ENV: str(state.path),
    }


def remote_environment() -> dict[str, str]:
    """Of every job of a batch system."""
    direct = "127.0.0.1,::1,localhost"
    poll = {"FLWR_SUPEREXEC_TASK_POLL_INTERVAL": POLL_S, "PYTHONUNBUFFERED": "1"}
    return {**QUIET, **poll, "NO_PROXY": direct, "no_proxy": direct}


def threads(nodes: int) -> dict[str, str]:
    """How many threads each node's numerical libraries may start."""
    # numerical libraries take every core each; nodes that share this machine would fight over them
    if "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, cores() // max(1, nodes)))}


def answering(site: Site) -> dict[str, str]:
    """What tells a node that it answers for many clients; nothing where it does not."""
    if site.mpi is None:
        return {}
    # the ranks of a batch job share its CPUs: by itself each would take them all
    cpus = getattr(site, "cpus", None)
    shared = {"OMP_NUM_THREADS": str(cpus // site.mpi.workers)} if isinstance(cpus, int) else {}
    return shared | site.mpi.variables()


def warming(site: Site) -> dict[str, str]:
    """What tells a node which packages its warm server may import; nothing where it shall have none."""
    if isinstance(site.warm, list):
        return {WARM_ENV: ",".join(["flwr", *site.warm])}
    return {WARM_ENV: PACKAGES} if site.warm else {}
