"""An app without MPI or SuperLink.

    python -m timing.simulate KIND FOLDER SERVERAPP CLIENTAPP NODES CONFIG

KIND is ``ray``, Flower's simulation, or ``inprocess``, our grid in this one process.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.object_ref import load_app

from flower_hpc.protocol import STATE_ENV


def main(kind: str, folder: str, serverapp: str, clientapp: str, nodes: str, config: str) -> None:
    """Run it."""
    server: ServerApp = load_app(serverapp, RuntimeError, Path(folder))
    client: ClientApp = load_app(clientapp, RuntimeError, Path(folder))
    {"ray": ray, "inprocess": inprocess}[kind](server, client, int(nodes), json.loads(config))


def ray(server: ServerApp, client: ClientApp, nodes: int, config: dict[str, Any]) -> None:
    """On every core, one for each client that works."""
    from flwr.simulation import run_simulation

    app = ServerApp()

    @app.main()
    def _main(grid: Grid, context: Context) -> None:
        context.run_config = config
        record(context.run_id, nodes)
        server(grid, context)

    cores = len(os.sched_getaffinity(0))
    backend: Any = {"init_args": {"num_cpus": cores}, "client_resources": {"num_cpus": 1}}
    run_simulation(app, client, num_supernodes=nodes, backend_config=backend)


def inprocess(server: ServerApp, client: ClientApp, nodes: int, config: dict[str, Any]) -> None:
    """One node after the other, in virtual time."""
    from flower_hpc.transport import InProcessGrid

    record(1, nodes)
    server(InProcessGrid(client, nodes, run_config=config), Context(1, 1, {}, RecordDict(), config))


def record(run_id: int, nodes: int) -> None:
    """Have our strategies write events, as they do in a federation, where a state folder is given."""
    if STATE_ENV not in os.environ:
        return
    state = Path(os.environ[STATE_ENV])
    (state / "requests").mkdir(exist_ok=True)
    request = {"run": "simulated", "run_dir": str(state / "run"), "nodes": nodes}
    (state / "requests" / f"{run_id}.json").write_text(json.dumps(request))


if __name__ == "__main__":
    main(*sys.argv[1:])
