"""`up --foreground`: one process that a container or a service manager can watch."""

import json
import os
import signal
import subprocess

import pytest

from doors import until
from processes import BIN, left_of, pids_of

pytestmark = pytest.mark.federation
CONFIG = (
    "name: fg\npartitions: 2\nsecurity: {network: host, shared_host: accept}\nsites: {here: {nodes: 1}}\n"
)


@pytest.fixture
def kept(shell, tmp_path):
    (tmp_path / "federation.yaml").write_text(CONFIG)
    env = os.environ | {"FLOWER_HPC_HOME": str(tmp_path / "home"), "FLWR_TELEMETRY_ENABLED": "0"}
    started = []

    def start():
        with (tmp_path / "out").open("ab") as out:
            command = [BIN / "flower-hpc", "up", "--foreground", "federation.yaml"]
            started.append(
                subprocess.Popen(command, cwd=tmp_path, env=env, stdout=out, stderr=subprocess.STDOUT)
            )
        until(lambda: state(shell)["ready"], 60)
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.wait()


def state(shell):
    return json.loads(shell("flower-hpc", "status", "fg", "--json").stdout or '{"ready": false}')


def test_it_ends_with_all_of_this_machine_by_a_signal_and_goes_on_as_it_was(kept, shell, tmp_path):
    first = kept()
    assert shell("flower-hpc", "scale", "here", "2", "-f", "fg").returncode == 0
    first.send_signal(signal.SIGTERM)
    assert first.wait(60) == 0, (tmp_path / "out").read_text()
    assert not left_of(tmp_path)
    kept()
    assert len(state(shell)["nodes"]) == 2


def test_after_down_it_stays_and_nothing_else_does(kept, shell, tmp_path):
    process = kept()
    twice = shell("flower-hpc", "up", "--foreground", "federation.yaml")
    assert (twice.returncode, "is up already" in twice.stderr) == (1, True)
    assert shell("flower-hpc", "down", "fg").returncode == 0
    assert not pids_of(tmp_path, "flower-superlink")
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert "down; this process stays" in (tmp_path / "out").read_text()
