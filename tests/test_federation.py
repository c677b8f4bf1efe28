"""Real SuperLinks and SuperNodes: up, changed, killed, and down without a trace."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flower_hpc.errors import ConfigError, FederationError
from flower_hpc.federation import Federation, FederationConfig, NodeState, State
from flower_hpc.federation import leftovers as leftovers_of
from flower_hpc.federation.flwr_cli import flwr
from flower_hpc.federation.identity import ensure_tls
from flower_hpc.federation.state import HOME_ENV, StateDir
from flower_hpc.federation.superlink import SuperLink
from flower_hpc.launchers import LocalLauncher

pytestmark = pytest.mark.federation

FILE = """
name: lab
partitions: 3
sites:
  here: {nodes: 2, per_node: {here-1: {slowdown: SLOWDOWN}}}
"""


def until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
    return value


def left(name, home):
    return leftovers_of.find(StateDir(home / name))


def write(folder, slowdown=1):
    path = folder / "federation.yaml"
    path.write_text(FILE.replace("SLOWDOWN", str(slowdown)))
    return path


ON_HOST = "security: {network: host, shared_host: accept}\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a home with spaces") / "state of all"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOME_ENV, str(folder))
        yield folder


@pytest.fixture(scope="module")
def lab(home, tmp_path_factory):
    path = write(tmp_path_factory.mktemp("files"))
    federation = Federation.load(path)
    seen = []
    try:
        assert federation.up(seen.append).ready
        assert seen[-1].online == 2
        yield path
    finally:
        federation.down()
    assert left("lab", home) == {}


@pytest.fixture
def alone(home):
    """A name for a federation that is surely down afterwards."""
    yield "alone"
    if (home / "alone/federation.json").exists():
        Federation.load("alone").down()
    assert left("alone", home) == {}


def test_any_shell_sees_it_and_flower_lists_the_same_nodes(lab, home):
    status = Federation.load("lab").status()
    assert (status.state, status.wanted, status.online) == (State.READY, 2, 2)
    assert [(node.name, node.partition) for node in status.nodes] == [("here-0", 0), ("here-1", 1)]
    said = flwr(home / "lab", "supernode", "list", "lab")
    online = {int(node["node-id"]) for node in said["nodes"] if node["status"] == "online"}
    assert online == {node.node_id for node in status.nodes}
    assert json.loads(json.dumps(status.to_json()))["online"] == 2


def test_up_twice_changes_nothing(lab):
    before = Federation.load("lab").status()
    again = Federation.load(lab).up()
    assert {node.pid for node in again.nodes} == {node.pid for node in before.nodes}


def test_scaled_down_and_up_a_node_is_the_same_node(lab):
    federation = Federation.load("lab")
    before = federation.status().nodes[1]
    fewer = federation.scale("here", 1)
    assert [node.name for node in fewer.nodes] == ["here-0"]
    after = federation.scale("here", 2).nodes[1]
    assert (after.node_id, after.partition) == (before.node_id, before.partition)
    assert after.pid != before.pid


def test_what_cannot_be_is_refused_and_changes_nothing(lab, tmp_path):
    federation = Federation.load("lab")
    with pytest.raises(ConfigError, match="at most the 3 partitions"):
        federation.scale("here", 4)
    with pytest.raises(ConfigError, match="site must be one of: here"):
        federation.scale("there", 1)
    with pytest.raises(ConfigError, match="integer >= 0"):
        federation.scale("here", -1)
    with pytest.raises(ConfigError, match="node must be one of: superlink, controller, here-0"):
        federation.log_path("nobody")
    other = tmp_path / "federation.yaml"
    other.write_text("name: lab\nsecurity: insecure\nsites: {here: {nodes: 1}}")
    with pytest.raises(ConfigError, match=r"security\.mode: got 'insecure', must be 'tls'"):
        Federation.load(other).up()
    mine = Federation.ephemeral(nodes=1, name="lab")
    with pytest.raises(ConfigError, match="must be another"):
        mine.up()
    assert not mine.down()
    assert federation.status().ready


def test_a_damaged_status_is_no_traceback(lab, home):
    (home / "lab/status.json").write_text('{"name": ')
    assert Federation.load("lab").status().state is State.STARTING
    assert Federation.load("lab").scale("here", 2).ready


def test_changed_settings_restart_that_node_alone(lab):
    before = Federation.load("lab").status()
    after = Federation.load(write(lab.parent, slowdown=7)).up()
    assert after.nodes[0].pid == before.nodes[0].pid
    assert after.nodes[1].pid != before.nodes[1].pid
    assert after.nodes[1].node_id == before.nodes[1].node_id
    assert b"slowdown=7" in Path(f"/proc/{after.nodes[1].pid}/cmdline").read_bytes()


def test_a_killed_controller_is_replaced_and_what_runs_goes_on(lab):
    federation = Federation.load("lab")
    before = federation.status()
    os.kill(before.controller_pid, signal.SIGKILL)
    until(lambda: not federation.is_up())
    assert federation.status().state is State.ORPHANED
    after = federation.up()
    assert after.controller_pid != before.controller_pid
    assert after.superlink.pid == before.superlink.pid
    assert {node.pid for node in after.nodes} == {node.pid for node in before.nodes}
    # and obeys as before
    federation.scale("here", 1)
    assert federation.scale("here", 2).nodes[1].node_id == before.nodes[1].node_id


def test_a_killed_superlink_returns_to_its_port_and_a_killed_controller_is_cleaned_up_after(lab, home):
    federation = Federation.load("lab")
    before = federation.status()
    os.kill(before.superlink.pid, signal.SIGKILL)
    until(lambda: federation.status().superlink.restarts == 1 and federation.status().ready)
    after = federation.status()
    assert after.address == before.address
    assert {node.node_id for node in after.nodes} == {node.node_id for node in before.nodes}

    os.kill(after.controller_pid, signal.SIGKILL)
    until(lambda: not federation.is_up())
    assert federation.status().state is State.ORPHANED
    assert federation.down()
    assert left("lab", home) == {}
    assert not federation.down()
    assert federation.status().state is State.DOWN
    with pytest.raises(FederationError, match="lab is not up"):
        federation.scale("here", 1)


def test_insecure_warns_and_a_killed_node_is_started_again(alone, tmp_path, home):
    path = tmp_path / "federation.yaml"
    path.write_text("name: alone\nsecurity: insecure\nsites: {here: {nodes: 1}}")
    federation = Federation.load(path)
    assert any("insecure" in words for words in federation.warnings)
    node = federation.up().nodes[0]
    os.kill(node.pid, signal.SIGKILL)
    until(lambda: federation.status().nodes[0].restarts == 1 and federation.status().ready)
    assert not (home / "alone/ca.pem").exists()
    assert federation.down()


def test_a_taken_port_is_refused_before_anything_starts(alone, tmp_path, home):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        path = tmp_path / "federation.yaml"
        path.write_text(f"name: alone\n{ON_HOST}superlink: {{port: {port}}}\nsites: {{here: {{nodes: 1}}}}")
        with pytest.raises(ConfigError, match=rf"superlink.port: {port} is taken on 127.0.0.1"):
            Federation.load(path).up()
    assert left("alone", home) == {}


def test_a_port_lost_between_choice_and_start_is_replaced(alone, home):
    state = StateDir(home / "alone")
    state.create()
    ensure_tls(state, "127.0.0.1")
    on_host = {"network": "host", "shared_host": "accept"}
    data = {"name": "alone", "security": on_host, "sites": {"here": {"nodes": 1}}}
    config = FederationConfig.parse(data, "test")
    link = SuperLink(config, state, LocalLauncher())
    try:
        link.keeper.start()
        lost = link.link.port
        with socket.socket() as thief:
            thief.bind((link.link.host, lost))
            thief.listen()
            until(lambda: link.keeper.tick() or link.keeper.state is NodeState.ONLINE)
        assert link.link.port != lost
        assert "in use" in link.keeper.last_words
    finally:
        link.keeper.stop()
        until(lambda: link.keeper.tick() or link.keeper.stopped)
        leftovers_of.end(state)


def test_a_dry_run_makes_nothing(home, tmp_path):
    path = tmp_path / "federation.yaml"
    path.write_text("name: dry\nsites: {here: {nodes: 2}}")
    plan = Federation.load(path).plan()
    assert [step["name"] for step in plan] == ["superlink", "here-0", "here-1"]
    assert "--enable-supernode-auth" in plan[0]["command"]
    assert not (home / "dry").exists()


UP = """
import signal
# where the tests run in the background of a shell, SIGINT is ignored, and so it would be here
signal.signal(signal.SIGINT, signal.default_int_handler)
import sys
from flower_hpc.federation import Federation
try:
    Federation.ephemeral(nodes=2, name="alone").up(lambda status: print(status.state, flush=True))
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_outlives_the_command_that_was_interrupted(alone, home, number):
    command = [sys.executable, "-c", UP]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout.readline().strip() == State.STARTING
        process.send_signal(number)
        assert process.wait(30) == (130 if number == signal.SIGINT else -signal.SIGKILL)
    until(lambda: not StateDir(home / "alone").held("controller.lock"), 15)
    assert left("alone", home) == {}


def test_a_node_that_cannot_start_is_named_with_its_last_words(alone, tmp_path, home):
    path = tmp_path / "federation.yaml"
    broken = "env: {FLWR_SUPEREXEC_TASK_POLL_INTERVAL: 1, PYTHONHOME: /nonexistent}"
    path.write_text(f"name: alone\nsecurity: insecure\nsites: {{here: {{nodes: 1, {broken}}}}}")
    with pytest.raises(
        FederationError, match=r"alone cannot start: not online: here-0; here-0: exit code 1: .*"
    ):
        Federation.load(path).up()
    assert Federation.load("alone").status().nodes[0].state is NodeState.STOPPED
