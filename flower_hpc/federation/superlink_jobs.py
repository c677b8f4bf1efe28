"""The SuperLink as a job: on this machine, or on a node of a cluster, where a gateway stands beside it."""

import signal
from pathlib import Path

from ..launchers import JobSpec
from ..launchers.ports import join
from ..protocol import STATE_ENV
from .config import FederationConfig
from .environment import environment, remote_environment
from .link import ENCLOSED
from .state import StateDir


def superlink_job(config: FederationConfig, state: StateDir, port: int, socket: Path | None) -> JobSpec:
    """The SuperLink, on ``port``; its ServerApps inherit folder and environment.

    With ``socket`` it lives in a network of its own, and that UNIX socket leads to it.
    """
    command = superlink_command(config, state.path, str(state.database), port)
    if socket is not None:
        inside = join(config.superlink.host, port)
        command = [*ENCLOSED, "--in", f"unix:{socket}={inside}", "--", *command]
    return JobSpec(
        name="superlink",
        command=tuple(command),
        cwd=state.path / "superlink",
        log=state.log("superlink"),
        env=environment(state, state.path / "superlink"),
        stop_signal=signal.SIGTERM,
        fingerprint=" ".join(command),
    )


def superlink_command(config: FederationConfig, folder: Path, database: str, port: int | str) -> list[str]:
    """Flower's program with its options; ``folder`` holds the certificates."""
    command = ["flower-superlink", "--host", config.superlink.host, "--port", str(port)]
    command += ["--database", database]
    command += ["--isolation", "subprocess", "--disable-runtime-dependency-installation"]
    if not config.tls:
        return [*command, "--insecure"]
    files = {
        "--ssl-ca-certfile": "ca.pem",
        "--ssl-certfile": "superlink.pem",
        "--ssl-keyfile": "superlink.key",
    }
    command += [word for key, name in files.items() for word in (key, str(folder / name))]
    return [*command, "--enable-supernode-auth"]


def far_superlink_job(config: FederationConfig, state: StateDir, folder: Path) -> JobSpec:
    """The SuperLink on a node of a cluster; ``folder`` on the shared disk says where it has come to live."""
    host = ["python", "-m", f"{__package__}.link_host", str(folder)]
    if config.security.shared_host == "accept":
        host.append("--or-host")
    command = [*host, "--", *superlink_command(config, folder, "{database}", "{port}")]
    return JobSpec(
        name="superlink",
        command=tuple(command),
        cwd=folder / "node",
        log=state.log("superlink"),
        env=remote_environment() | {STATE_ENV: str(state.path)},
        fingerprint=" ".join(command),
    )
