"""The columns that are one command each: ours under mpiexec, Flower's Ray simulation; and MPI by itself."""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from .echo import OURS, Order, Ran
from .programs import BENCHMARKS, BIN, Failed, environment, run, tail
from .saying import say

RUN_S, RAY_S = 900.0, 240.0
BCAST = "MPIR_CVAR_BCAST_POSIX_INTRA_ALGORITHM"
RECEIVED = "aggregate_train: Received"


def mpi(folder: Path, order: Order, ranks: int = 4) -> Ran:
    """``mpiexec flower-hpc mpi`` on a rank for the server and ``ranks`` for the nodes."""
    notes = Path(tempfile.mkdtemp(dir=folder))
    config = order.config(notes, OURS)
    del config["strategy"]
    flower_hpc(folder, notes, order.app(notes), ranks, order.nodes, OURS, config)
    return Ran.read(notes)


def flower_hpc(
    folder: Path,
    notes: Path,
    app: Path,
    ranks: int,
    nodes: int,
    strategy: str,
    config: dict[str, Any],
    *words: object,
) -> float:
    """Run an app under mpiexec; the seconds that the whole command took."""
    pairs = [word for k, v in config.items() for word in ("-c", f"{k}={json.dumps(v)}")]
    chosen = ["--strategy", strategy] if strategy else []
    command = [BIN / "mpiexec", "-n", ranks + 1, BIN / "flower-hpc", "mpi", app, "--nodes", nodes, *chosen]
    env = environment(FLOWER_HPC_HOME=str(folder / "home"))
    return run([*command, *pairs, *words], notes / "mpi.log", env, RUN_S)


def bare(folder: Path, floats: int, rounds: int) -> dict[str, float]:
    """Seconds of a plain broadcast and sum on as many ranks, with either broadcast of MPICH."""
    log, found = folder / "bare.log", {}
    script = BENCHMARKS / "timing" / "bare_mpi.py"
    # MPICH's own choice in shared memory spins, which costs much with more ranks than cores
    for name, env in {"mpir": {BCAST: "mpir"}, "default": {}}.items():
        mine = {k: v for k, v in environment().items() if k != BCAST} | env
        log.unlink(missing_ok=True)
        run([BIN / "mpiexec", "-n", 5, sys.executable, script, floats, rounds], log, mine)
        found[f"{name}_s"] = json.loads(tail(log).splitlines()[-1])["seconds"]
    return found


def ray(folder: Path, order: Order) -> Ran:
    """Flower's Ray simulation."""
    notes = Path(tempfile.mkdtemp(dir=folder))
    app, config = order.app(notes), order.config(notes, "")
    simulated("ray", notes, app, order.server, order.client, order.nodes, config)
    return Ran.read(notes)


def simulated(
    kind: str,
    notes: Path,
    app: Path,
    server: str,
    client: str,
    nodes: int,
    config: dict[str, Any],
    tries: int = 2,
    **env: str,
) -> float:
    """Run an app without MPI or SuperLink; the seconds that the whole command took.

    Ray's driver now and then never hears that its actors live, and waits for ever: such a run is made anew.
    """
    path = os.pathsep.join(filter(None, [str(app), str(BENCHMARKS), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-m", "timing.simulate", kind, app, server, client, nodes, json.dumps(config)]
    for attempt in range(1, tries + 1):
        log = notes / f"{kind}-{attempt}.log"
        try:
            return run(command, log, environment(PYTHONPATH=path, **env), RAY_S)
        except Failed:
            if attempt == tries or RECEIVED in log.read_text(errors="replace"):
                raise
            say("  Ray has not begun; once more")
    raise AssertionError
