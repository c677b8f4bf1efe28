"""What a federation's processes are: pure translations from its config to job specs."""

import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..launchers import JobSpec
from ..protocol import NODE_NAME, NODE_STATE_ENV, NUM_PARTITIONS, PARTITION_ID, STATE_ENV
from .config import DATA_DIR, FederationConfig, Scalar
from .flwr_cli import QUIET, program
from .roster import Roster, names_of
from .state import StateDir

OWNER_ENV = "FLOWER_HPC_OWNER"
"""Set on every process that belongs to a federation: its state folder. What is left over is found by it."""
POLL_S = "0.2"  # Flower's default of 1 s is a second of every message


@dataclass(frozen=True, kw_only=True)
class NodePlan:
    """All that decides how a SuperNode is started; one that changes is restarted."""

    name: str
    site: str
    partition: int
    superlink: str
    tls: bool
    config: Mapping[str, Scalar]
    env: Mapping[str, str] = field(default_factory=dict)


def plan_nodes(
    config: FederationConfig, roster: Roster, counts: Mapping[str, int], superlink: str
) -> dict[str, NodePlan]:
    """The nodes that shall run, by name."""
    plans = {}
    threads = _threads(sum(counts.values()))
    for site_name, site in config.sites.items():
        for name in names_of({site_name: counts.get(site_name, 0)}):
            partition = roster.members[name].partition
            ours: dict[str, Scalar] = {
                NODE_NAME: name,
                PARTITION_ID: partition,
                NUM_PARTITIONS: roster.partitions,
            }
            data: dict[str, Scalar] = {DATA_DIR: site.data_dir} if site.data_dir else {}
            extra = dict(site.node_config) | dict(site.per_node.get(name, {}))
            plans[name] = NodePlan(
                name=name,
                site=site_name,
                partition=partition,
                superlink=superlink,
                tls=config.security == "tls",
                config=ours | data | extra,
                env=threads | dict(site.env),
            )
    return plans


def superlink_job(config: FederationConfig, state: StateDir, port: int | str) -> JobSpec:
    """The SuperLink, on ``port``; its ServerApps inherit folder and environment."""
    command = [program("flower-superlink"), "--host", config.superlink.host, "--port", str(port)]
    command += ["--database", str(state.database)]
    command += ["--isolation", "subprocess", "--disable-runtime-dependency-installation"]
    if config.security == "tls":
        command += ["--ssl-ca-certfile", str(state.ca), "--ssl-certfile", str(state.server_cert)]
        command += ["--ssl-keyfile", str(state.server_key), "--enable-supernode-auth"]
    else:
        command += ["--insecure"]
    return JobSpec(
        name="superlink",
        command=tuple(command),
        cwd=state.path / "superlink",
        log=state.log("superlink"),
        env=_env(state, state.path / "superlink"),
        stop_signal=signal.SIGTERM,
    )


def supernode_job(plan: NodePlan, state: StateDir, port: int | str) -> JobSpec:
    """A SuperNode, whose own Runtime API listens on ``port`` of the loopback."""
    folder = state.nodes / plan.name
    command = [program("flower-supernode"), "--superlink", plan.superlink]
    if plan.tls:
        command += ["--root-certificates", str(state.ca)]
        command += ["--auth-supernode-private-key", str(state.keys / plan.name)]
    else:
        command += ["--insecure"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--node-config", node_config(plan.config)]
    return JobSpec(
        name=plan.name,
        command=tuple(command),
        cwd=folder,
        log=state.log(plan.name),
        # where the node's work looks for the file `stop`
        env=_env(state, folder) | {NODE_STATE_ENV: str(folder)} | dict(plan.env),
    )


def registration_job(names: list[str], connection: str, state: StateDir) -> JobSpec:
    """Registers nodes with the SuperLink, all in one process: Flower takes seconds to import."""
    module = f"{__package__}.registration"
    command = [sys.executable, "-m", module, str(state.path), connection, *names]
    return JobSpec(
        name="registration",
        command=tuple(command),
        cwd=state.path,
        log=state.log("registration"),
        env=_env(state, state.flwr),
        stop_signal=signal.SIGTERM,
    )


def node_config(values: Mapping[str, Scalar]) -> str:
    """Flower's ``--node-config``: ``key=value`` pairs, values as in TOML."""
    return " ".join(f"{key}={_toml(value)}" for key, value in values.items())


def connection_toml(config: FederationConfig, state: StateDir, address: str) -> str:
    """The config.toml with which ``flwr`` reaches the SuperLink, under the federation's name."""
    lines = ["[superlink]", f"default = {json.dumps(config.name)}", "", f"[superlink.{config.name}]"]
    lines.append(f"address = {json.dumps(address)}")
    if config.security == "tls":
        lines.append(f"root-certificates = {json.dumps(str(state.ca), ensure_ascii=False)}")
    else:
        lines.append("insecure = true")
    return "\n".join(lines) + "\n"


def _env(state: StateDir, flwr_home: Path) -> dict[str, str]:
    # the loopback is never behind a proxy, whatever the site's environment says of others
    direct = ",".join(
        filter(None, (os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), "127.0.0.1,::1"))
    )
    folder = str(Path(sys.executable).parent)  # Flower looks for flower-superexec and flwr-clientapp on PATH
    return {
        **QUIET,
        "FLWR_HOME": str(flwr_home),
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": POLL_S,
        "NO_PROXY": direct,
        "no_proxy": direct,
        "PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",
        STATE_ENV: str(state.path),
        OWNER_ENV: str(state.path),
    }


def _threads(nodes: int) -> dict[str, str]:
    # numerical libraries take every core each; nodes that share this machine would fight over them
    if "OMP_NUM_THREADS" in os.environ:
        return {}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"OMP_NUM_THREADS": str(max(1, cores // max(1, nodes)))}


def _toml(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"'{value}'" if "'" not in value else json.dumps(value, ensure_ascii=False)
    return repr(value)
