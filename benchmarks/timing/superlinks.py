"""The columns with a SuperLink: Flower's own commands, and a federation of ours."""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flower_hpc.federation import Federation
from flower_hpc.federation.flwr_cli import flwr
from flower_hpc.federation.runs import App, new_name, state_of, submit

from .echo import OURS, Order, Ran, wait
from .programs import BIN, Peak, all_started, environment, free_ports, wait_for_port

RUN_S = 600.0
Runner = Callable[[Order], tuple[Ran, float]]
"""Runs the app; gives what it noted, and the most memory of the server's processes together, MB."""


@contextmanager
def stock(folder: Path, nodes: int) -> Iterator[Runner]:
    """``flower-superlink`` and ``flower-supernode`` with Flower's defaults, as its documentation has it."""
    port, *ports = free_ports(nodes + 1)
    address, state = f"127.0.0.1:{port}", folder / "stock"
    (state / "flwr").mkdir(parents=True)
    (state / "flwr" / "config.toml").write_text(
        f'[superlink]\ndefault = "stock"\n\n[superlink.stock]\naddress = "{address}"\ninsecure = true\n'
    )
    # the app has no dependencies: without this the SuperLink would make an empty environment for each run
    link = ["--insecure", "--port", port, "--disable-runtime-dependency-installation"]
    commands: dict[str, list[object]] = {"superlink": [BIN / "flower-superlink", *link]}
    for i, own in enumerate(ports):
        config = f"partition-id={i} num-partitions={nodes}"
        known = ["--insecure", "--superlink", address, "--port", own, "--node-config", config]
        commands[f"supernode-{i}"] = [BIN / "flower-supernode", *known]
    with all_started(commands, state, environment(FLWR_HOME=str(state / "flwr"))) as processes:
        wait_for_port(port)

        def run(order: Order) -> tuple[Ran, float]:
            notes = Path(tempfile.mkdtemp(dir=state))
            config = notes / "run.toml"
            config.write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in order.config(notes, "").items()))

            def start() -> int:
                app = order.app(notes)
                return int(flwr(state, "run", str(app), "stock", "--run-config", str(config))["run-id"])

            return _watched(state, "stock", processes["superlink"].pid, notes, start)

        yield run


@contextmanager
def ours(folder: Path, nodes: int) -> Iterator[Runner]:
    """A federation of this machine, as ``flower-hpc`` makes it, with HybridStrategy."""
    fed = Federation.ephemeral(nodes=nodes, name=f"bench-echo-{nodes}")
    try:
        fed.up(timeout_s=180)
        link = fed.status().superlink

        def run(order: Order) -> tuple[Ran, float]:
            notes = Path(tempfile.mkdtemp(dir=folder))

            def start() -> int:
                app, config = App.read(order.app(notes)), order.config(notes, OURS)
                name = new_name("echo")
                return submit(
                    fed.state_dir, fed.connection, app, config, name=name, strategy=OURS, nodes=nodes
                ).run_id

            assert link is not None
            assert link.pid is not None
            return _watched(fed.state_dir, fed.connection, link.pid, notes, start)

        yield run
    finally:
        fed.down()


def _watched(
    state: Path, connection: str, pid: int, notes: Path, start: Callable[[], int]
) -> tuple[Ran, float]:
    peak = Peak(pid)
    run_id = start()

    def ended() -> str | None:
        status, details = state_of(state, connection, run_id)
        return f"{status} {details}" if status.startswith("finished") else None

    ran = wait(notes, ended, RUN_S)
    memory = ran.server_mb + peak.mb(but=ran.pid)
    while not ended():
        time.sleep(0.5)
    return ran, memory
