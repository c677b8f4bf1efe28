"""A real SuperLink in a network of its own: its nodes come in, its owner comes in, and nobody else."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from doors import as_stranger, free_port, short_folder, until
from flower_hpc.federation.identity import ensure_node_key, ensure_tls
from flower_hpc.federation.state import StateDir
from flower_hpc.network.namespace import can_enclose
from processes import BIN

pytestmark = [
    pytest.mark.federation,
    pytest.mark.skipif(can_enclose() is not None, reason=f"no network namespace: {can_enclose()}"),
]

INSIDE = "127.0.0.1:8000"
ENCLOSED = (sys.executable, "-m", "flower_hpc.network.enclosed")


class Lab:
    """Starts Flower's programs with their logs in the lab's folder."""

    def __init__(self, folder):
        self.folder, self.running = folder, []
        self.state = StateDir(folder / "lab")
        self.state.create()
        ensure_tls(self.state, "127.0.0.1")
        config = f'[superlink.lab]\naddress = "{INSIDE}"\nroot-certificates = "{self.state.ca}"\n'
        (self.state.flwr / "config.toml").write_text(config)
        self.socket = f"unix:{folder}/s"
        self.gateway = f"127.0.0.1:{free_port()}"
        self.env = os.environ | {
            "FLWR_HOME": str(self.state.flwr),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        }

    def start(self, log, *command):
        with (self.folder / log).open("wb") as file:
            process = subprocess.Popen(
                list(map(str, command)), env=self.env, stdout=file, stderr=subprocess.STDOUT, cwd=self.folder
            )
        self.running.append(process)
        return process

    def said(self, log, words):
        return words in (self.folder / log).read_text(errors="replace")

    def superlink(self, log):
        tls = ("--ssl-ca-certfile", self.state.ca, "--ssl-certfile", self.state.server_cert)
        return self.start(
            log,
            *(*ENCLOSED, "--in", f"{self.socket}={INSIDE}", "--", BIN / "flower-superlink"),
            *("--host", "127.0.0.1", "--port", "8000", "--database", self.state.database),
            *(*tls, "--ssl-keyfile", self.state.server_key, "--enable-supernode-auth"),
            *("--isolation", "subprocess", "--disable-runtime-dependency-installation"),
        )

    def supernode(self, name, address, *before):
        key = ensure_node_key(self.state.keys, name)
        options = ("--root-certificates", self.state.ca, "--auth-supernode-private-key", key)
        port = ("--host", "127.0.0.1", "--port", free_port())
        return self.start(
            f"{name}.log", *before, BIN / "flower-supernode", "--superlink", address, *options, *port
        )

    def flwr(self, *arguments, prefix=None):
        prefix = (*ENCLOSED, "--out", f"{INSIDE}={self.socket}", "--") if prefix is None else prefix
        command = [*prefix, BIN / "flwr", *arguments, "--format", "json"]
        return subprocess.run(
            list(map(str, command)), env=self.env, capture_output=True, text=True, check=False
        )


@pytest.fixture
def lab():
    with short_folder() as folder:
        lab = Lab(folder)
        try:
            yield lab
        finally:
            for process in reversed(lab.running):
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                process.wait()


def test_nodes_come_in_and_come_back_and_strangers_do_not(lab):
    superlink = lab.superlink("first.log")
    lab.start(
        "gateway.log",
        *(BIN / "flower-hpc", "gateway", "--listen", lab.gateway, "--superlink", lab.socket),
        *("--certificate", lab.state.server_cert, "--key", lab.state.server_key, "--ca", lab.state.ca),
    )
    until(lambda: lab.said("first.log", "Uvicorn running on") and lab.said("gateway.log", "passes"))

    for name in ("far", "near"):
        ensure_node_key(lab.state.keys, name)
        done = lab.flwr("supernode", "register", lab.state.keys / f"{name}.pub", "lab")
        assert '"success": true' in done.stdout, done.stdout + done.stderr

    unknown = lab.supernode("unknown", lab.gateway)
    far = lab.supernode("far", lab.gateway)
    near = lab.supernode("near", INSIDE, *ENCLOSED, "--out", f"{INSIDE}={lab.socket}", "--")
    until(lambda: lab.said("far.log", "SuperNode ID:") and lab.said("near.log", "SuperNode ID:"))
    assert unknown.wait() != 0
    assert not lab.said("unknown.log", "SuperNode ID:")

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", 8000))
    config = lab.state.flwr / "config.toml"
    inside = config.read_text()
    config.write_text(inside.replace(INSIDE, lab.gateway))
    assert '"success": true' not in lab.flwr("list", "lab", prefix=()).stdout
    config.write_text(inside)
    assert lab.said("gateway.log", "refused (path): POST b'/v1/control/")
    if os.geteuid() == 0:
        door = f"import socket; socket.socket(socket.AF_UNIX).connect({lab.socket[5:]!r})"
        assert "PermissionError" in as_stranger(["python3", "-c", door]).stderr

    superlink.send_signal(signal.SIGKILL)
    superlink.wait()
    until(lambda: lab.said("gateway.log", "cannot be reached"))
    lab.superlink("second.log")
    until(lambda: lab.said("second.log", "Uvicorn running on"))
    for log in ("far.log", "near.log"):
        until(lambda log=log: lab.said(log, "Connection successful"), 120)
    assert (far.poll(), near.poll()) == (None, None)
    assert '"success": true' in lab.flwr("list", "lab").stdout
    assert not Path(lab.folder / "gateway.log").read_text().count("Traceback")
