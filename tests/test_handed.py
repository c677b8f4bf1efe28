"""A site whose nodes others start: what they are handed, how it is used, and how such nodes are seen here."""

import base64
import gzip
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from doors import free_port
from flower_hpc.clock import VirtualClock
from flower_hpc.errors import ConfigError, LaunchError
from flower_hpc.federation import Federation, FederationConfig, NodeState
from flower_hpc.federation.cluster import inside
from flower_hpc.federation.desired import Desired, Saved
from flower_hpc.federation.door import Door, furnish
from flower_hpc.federation.facts import Facts
from flower_hpc.federation.hearing import Hearing
from flower_hpc.federation.identity import ensure_node_key, ensure_tls, fingerprint_of
from flower_hpc.federation.jobs import plan_nodes, supernode_job
from flower_hpc.federation.launching import Launchers
from flower_hpc.federation.link import Link
from flower_hpc.federation.node import Node
from flower_hpc.federation.roster import Roster, roster_for
from flower_hpc.federation.state import HOME_ENV, StateDir, write_json
from flower_hpc.federation.withdrawing import Withdrawing
from flower_hpc.launchers import JobSpec, JobState
from flower_hpc.launchers.bundle import ADDRESS, HEALTH, HOME, POD, ROOT, placed, unpack
from flower_hpc.launchers.bundled import fly, health_address, here
from flower_hpc.launchers.filling import fill
from flower_hpc.launchers.handed import SILENT_S, HandedLauncher
from flower_hpc.launchers.warm import WARM_ENV
from kube_rules import refused as refused_by_a_server
from lab import Lab, until
from processes import left_of

GATEWAY = "gateway: {address: fl.example.org, port: 8443}\n"
SITE = "launcher: handed, nodes: 2, data_dir: /data, node_config: {x: 1}, env: {A: b}"
FILE = f"name: lab\npartitions: 4\n{GATEWAY}sites:\n  here: {{nodes: 1}}\n  hospital: {{{SITE}}}\n"


@pytest.fixture
def flower_hpc(flower_hpc, tmp_path):
    """The command line, in a folder with a federation file."""
    (tmp_path / "federation.yaml").write_text(FILE)
    return flower_hpc


@pytest.fixture
def known(tmp_path, monkeypatch):
    """The state folder of a federation that was up with its handed site."""
    monkeypatch.setenv(HOME_ENV, str(tmp_path / "home"))
    config = FederationConfig.parse(yaml.safe_load(FILE), "file")
    state = StateDir(tmp_path / "home" / "lab")
    state.create()
    ensure_tls(state, "127.0.0.1")
    Saved(config=config).write(state)
    Desired(generation=1, nodes=config.counts).write(state)
    roster_for(config, None, config.counts).write(state.roster)
    launchers = Launchers(state)
    for name in ("hospital-0", "hospital-1"):
        ensure_node_key(state.keys, name)
        furnish(config, state, "hospital", name)
    Door(config, state, launchers.here)._open("hospital", config.sites["hospital"])
    return state


# -- the file ----------------------------------------------------------------------------------------

NO_PORT = "gateway: {address: fl.example.org}\n"


def a_file(site="nodes: 1", others="", head=GATEWAY):
    return f"{head}sites: {{{others}a: {{launcher: handed, {site}}}}}"


AWAY = "burst: {to: %s, after_queue_minutes: 1}"
WRONG = {
    a_file(head=NO_PORT): "gateway.port: is missing, must be an integer from 1 to 65535: others start the",
    a_file("nodes: 1, via: 'x:1'", head=NO_PORT): "gateway.port: is missing",
    a_file(head="gateway: {port: 8443}\n"): "sites.a.via: is missing, must be",
    a_file(head=f"{GATEWAY}security: insecure\n"): "security: got 'insecure'",
    a_file(
        head=f"{GATEWAY}superlink: {{launcher: slurm}}\n"
    ): "superlink.launcher: got 'slurm', must be local",
    a_file("nodes: 1, data_dir: data"): "sites.a.data_dir: got 'data', must be an absolute path where",
    a_file("nodes: 1, image: x"): "sites.a.image: unknown field",
    a_file("nodes: 1, autoscale: {max: 3}"): "sites.a.autoscale: got a mapping, must be left out",
    a_file(f"nodes: 1, {AWAY % 'b'}", others="b: {nodes: 1}, "): "sites.a.burst: got a mapping, must be left",
    a_file(
        others=f"b: {{nodes: 1, {AWAY % 'a'}}}, "
    ): "sites.b.burst.to: got 'a', must be a site whose nodes",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_mistake_is_one_line(text):
    with pytest.raises(ConfigError) as caught:
        FederationConfig.parse(yaml.safe_load(text), "file")
    assert WRONG[text] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_beside_a_superlink_in_a_cluster_its_port_is_known():
    data = yaml.safe_load(FILE.replace(", port: 8443", ""))
    data["superlink"] = {"launcher": "kubernetes", "image": "i:1", "namespace": "fl"}
    made = inside(FederationConfig.parse(data, "file"))
    assert made["gateway"]["port"] == 8443
    assert made["sites"]["hospital"]["launcher"] == "handed"
    FederationConfig.parse(made, "the pod's")


# -- how it is seen here -----------------------------------------------------------------------------


def a_job(name="hospital-0"):
    return JobSpec(name=name, command=("flower-supernode",), cwd=HOME / "nodes" / name, log=HOME / "log")


def test_a_node_waits_until_it_is_heard_and_again_when_it_is_silent_or_signs_off():
    clock, heard = VirtualClock(1000.0), {}
    launcher = HandedLauncher("hospital", heard.get, clock)
    job = launcher.submit(a_job())

    def seen():
        status = launcher.status(job)
        assert status.job  # else nobody would believe it queued
        return status.state, status.reason

    assert seen() == (
        JobState.PENDING,
        "waits to be started elsewhere: `flower-hpc bundle hospital`",
    )
    heard["hospital-0"] = 1000.0
    assert seen()[0] is JobState.RUNNING
    del heard["hospital-0"]  # a new gateway has heard nobody yet
    assert seen()[0] is JobState.RUNNING
    clock.sleep(SILENT_S)
    assert seen()[0] is JobState.PENDING
    assert "was not heard for 99 s" in seen()[1]
    heard["hospital-0"] = clock.wall()
    assert seen()[0] is JobState.RUNNING
    heard["hospital-0"] = 0.0
    assert seen()[0] is JobState.PENDING
    assert "signed off, and waits to be started again elsewhere" in seen()[1]
    launcher.cancel(job)
    assert launcher.status(job).state is JobState.CANCELLED
    launcher.cancel(job, force=True)
    assert launcher.status(job).state is JobState.UNKNOWN
    assert (launcher.logs(job), launcher.adopt()) == ("", {})


def test_the_controller_tells_of_it_as_of_a_node_in_a_queue(known):
    config, state = Saved.read(known).config, known
    roster = Roster.read(state.roster)
    plans = plan_nodes(config, roster, config.counts, state, Link("127.0.0.1", 1), "tcp:127.0.0.1:2")
    launcher = Launchers(state).of(config, "hospital")
    node = Node(plans["hospital-0"], state, launcher, Facts(state.path), heard=Hearing(state))
    node.keeper.start()
    print_ = fingerprint_of(state.keys, "hospital-0")

    def ticked():
        node.tick()
        return node.keeper.state

    def heard(at):
        write_json(state.heard, {print_: at})

    assert ticked() is NodeState.QUEUED
    shown = node.status(None, NodeState.STARTING)
    assert shown.reason == "waits to be started elsewhere: `flower-hpc bundle hospital`"
    until(lambda: heard(time.time()) or ticked() is NodeState.ONLINE, 10, every=0.1)
    heard(time.time() - 200)
    assert ticked() is NodeState.QUEUED
    assert node.status(None, NodeState.STARTING).reason.count("was not heard") == 1
    told = [json.loads(line)["state"] for line in (state.path / "facts.jsonl").read_text().splitlines()]
    assert told == ["pending", "running", "preempted", "pending"]
    until(lambda: heard(time.time()) or ticked() is NodeState.ONLINE, 10, every=0.1)
    heard(0.0)
    assert ticked() is NodeState.QUEUED
    node.keeper.stop()
    assert ticked() is NodeState.STOPPED


def test_its_nodes_are_known_by_names_and_partitions_as_ever_and_may_be_asked_for_their_health(known):
    config = Saved.read(known).config
    roster = Roster.read(known.roster)
    plan = plan_nodes(config, roster, config.counts, known, Link("127.0.0.1", 1), "tcp:127.0.0.1:2")[
        "hospital-1"
    ]
    assert dict(plan.config) == {
        "name": "hospital-1",
        "partition-id": 2,
        "num-partitions": 4,
        "data-dir": "/data",
        "x": 1,
    }
    assert (plan.here, plan.bundled, plan.network) == (False, True, "private")
    assert plan.env.keys() == {"A", WARM_ENV}
    command = supernode_job(plan, known).command
    assert command[command.index("--health-server-address") + 1] == f"{{env:{HEALTH}}}"


# -- the bundle --------------------------------------------------------------------------------------


def test_the_folder_holds_this_sites_keys_for_nobody_else(flower_hpc, known, tmp_path):
    old = os.umask(0)
    try:
        code, out, err = flower_hpc("bundle", "hospital", "--out", "a/b")
    finally:
        os.umask(old)
    assert code == 0, err
    folder = tmp_path / "a/b"
    assert {path.name for path in folder.iterdir()} == {
        *("ca.pem", "door", "nodes.json.gz", "hospital-0.key", "hospital-1.key")
    }
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert (folder / "door").read_text() == "tcp:fl.example.org:8443"
    assert (folder / "hospital-0.key").read_bytes() == (known.keys / "hospital-0").read_bytes()
    assert (folder / "ca.pem").read_bytes() == known.ca.read_bytes()
    assert b"PRIVATE" not in gzip.decompress((folder / "nodes.json.gz").read_bytes())
    assert [line.split()[3] for line in out.splitlines()] == ["hospital-0", "hospital-1"]
    assert "python -m flower_hpc.launchers.bundled hospital-0 --root . " in out
    assert "private keys" in err


def test_a_folder_that_holds_something_is_refused_and_left_alone(flower_hpc, known, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("mine")
    for out in ("full", "full/mine"):
        code, printed, err = flower_hpc("bundle", "hospital", "--out", out)
        assert (code, printed, len(err.splitlines())) == (2, "", 1)
        assert "out must be an empty folder" in err
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]
    (tmp_path / "empty").mkdir(mode=0o755)
    code, out, _ = flower_hpc("bundle", "hospital", "--out", "empty", "--json")
    assert code == 0
    assert json.loads(out)["out"] == str(tmp_path / "empty")
    assert set(json.loads(out)["start"]) == {"hospital-0", "hospital-1"}
    assert stat.S_IMODE((tmp_path / "empty").stat().st_mode) == 0o700


def test_the_secret_is_one_that_a_cluster_takes(flower_hpc, known):
    code, out, _ = flower_hpc("bundle", "hospital")
    assert code == 0
    assert out.startswith("#")
    (secret,) = yaml.safe_load_all(out)
    for version in ("1.29", "1.36"):
        kubernetes_validate.validate(secret, version, strict=True)
    assert refused_by_a_server(secret) == []
    assert (secret["kind"], secret["metadata"]["name"]) == ("Secret", "lab-hospital")
    assert "namespace" not in secret["metadata"]
    assert secret["metadata"]["labels"]["flower-hpc/federation"] == "lab"
    assert secret["metadata"]["labels"]["flower-hpc/site"] == "hospital"
    assert base64.b64decode(secret["data"]["door"]) == b"tcp:fl.example.org:8443"
    assert set(secret["data"]) == {"ca.pem", "door", "nodes.json.gz", "hospital-0.key", "hospital-1.key"}
    code, out, _ = flower_hpc("bundle", "hospital", "--name", "keys", "--namespace", "fl", "--json")
    named = json.loads(out)["metadata"]
    assert (named["name"], named["namespace"]) == ("keys", "fl")


def test_more_nodes_are_in_a_bundle_that_is_fetched_anew(flower_hpc, known):
    config = Saved.read(known).config
    counts = {"here": 1, "hospital": 3}
    Desired(generation=2, nodes=counts).write(known)
    code, _, err = flower_hpc("bundle", "hospital")
    assert (code, "with all of its nodes once" in err) == (2, True)  # the controller is about to make it
    roster_for(config, Roster.read(known.roster), counts).write(known.roster)
    ensure_node_key(known.keys, "hospital-2")
    furnish(config, known, "hospital", "hospital-2")
    assert "hospital-2.key" in yaml.safe_load(flower_hpc("bundle", "hospital")[1])["data"]
    Desired(generation=3, nodes=counts | {"hospital": 1}).write(known)
    keys = [
        key for key in yaml.safe_load(flower_hpc("bundle", "hospital")[1])["data"] if key.endswith(".key")
    ]
    assert keys == ["hospital-0.key"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (
            ["hospital"],
            "must have been up with all of its nodes once, which makes their keys: `flower-hpc up`",
        ),
        (["here"], "site must be one of: hospital; got 'here'"),
        (["nope"], "site must be one of: hospital; got 'nope'"),
        (["hospital", "--out", "x", "--name", "y"], "leave them out with --out"),
    ],
)
def test_what_cannot_be_handed_over_is_one_line(flower_hpc, tmp_path, args, words):
    code, out, err = flower_hpc("bundle", *args)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert words in err
    assert not (tmp_path / "home").exists()
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("option", "value"), [("--name", "A_b"), ("--name", "a" * 64), ("--namespace", "A/b")]
)
def test_names_that_no_object_can_have_are_one_line(flower_hpc, known, option, value):
    code, out, err = flower_hpc("bundle", "hospital", option, value)
    assert (code, out, len(err.splitlines())) == (2, "", 1)


# -- where it is started -----------------------------------------------------------------------------


def test_on_a_host_of_its_own_a_bundle_may_lie_anywhere(flower_hpc, known, tmp_path):
    flower_hpc("bundle", "hospital", "--out", "there")
    root, home = tmp_path / "there", tmp_path / "var"
    found = unpack(root, "hospital-0")
    assert placed(found, ROOT, HOME) == found
    spec = placed(found, root, home)
    assert spec.door == root / "door"
    assert (spec.cwd, spec.log) == (home / "nodes/hospital-0", home / "logs/hospital-0.log")
    words = " ".join((*spec.command, *spec.env.values()))
    assert f"--root-certificates {root / 'ca.pem'}" in words
    assert f"--auth-supernode-private-key {root / 'hospital-0.key'}" in words
    assert not any(str(old) in words for old in (ROOT, HOME))
    assert "data-dir='/data'" in words


def test_a_words_own_beginning_is_no_place():
    word = f"{ROOT}-mine/x"
    spec = JobSpec(name="n", command=("x", word, f"--at={ROOT}/a"), cwd=HOME, log=HOME / "log")
    moved = placed(spec, Path("/r"), Path("/h"))
    assert moved.command == spec.command
    assert (moved.cwd, moved.log) == (Path("/h"), Path("/h/log"))


def test_only_in_a_pod_others_reach_its_health_server(monkeypatch):
    spec = JobSpec(name="n", command=("x", "--or-host", f"{{env:{HEALTH}}}"), cwd=HOME, log=HOME / "log")
    for name in (POD, ADDRESS):
        monkeypatch.delenv(name, raising=False)
    assert here(spec, ROOT, HOME) == spec
    monkeypatch.setenv(HEALTH, health_address())
    at = fill(spec, set())[-1]
    assert at.startswith("127.0.0.1:")
    assert at.rpartition(":")[2].isdigit()
    monkeypatch.setenv(POD, "lab-hospital-0")
    monkeypatch.setenv(ADDRESS, "10.0.0.7")
    assert here(spec, ROOT, HOME).command[1] == "--host"
    assert health_address() == "10.0.0.7:9098"


def test_a_home_that_cannot_be_made_is_one_line(flower_hpc, known, tmp_path, capsys):
    flower_hpc("bundle", "hospital", "--out", "there")
    (tmp_path / "file").touch()
    assert fly(tmp_path / "there", "hospital-0", 5, home=tmp_path / "file/home") == 1
    out = capsys.readouterr().out
    assert out.startswith("PilotError: ")
    assert len(out.splitlines()) == 1


# -- other commands ----------------------------------------------------------------------------------


def test_a_dry_run_shows_what_would_be_handed_over(flower_hpc, tmp_path):
    code, out, _ = flower_hpc("up", "--dry-run")
    assert code == 0
    assert "# hospital-1\n# others start it, with what `flower-hpc bundle hospital` hands over:\n" in out
    assert "python -m flower_hpc.launchers.bundled hospital-1 --root DIR" in out
    assert not (tmp_path / "home").exists()


def test_its_logs_are_where_it_was_started(flower_hpc, known):
    code, out, err = flower_hpc("logs", "hospital-0")
    assert (code, out) == (1, "")
    assert err.startswith("error: the log of hospital-0 is where it was started: logs/hospital-0.log in")
    assert len(err.splitlines()) == 1
    with pytest.raises(LaunchError):
        Federation.load("lab").fetch_log("hospital-0")


def test_the_doctor_says_how_its_nodes_would_come(flower_hpc, tmp_path):
    text = FILE.replace("fl.example.org", "127.0.0.1")
    (tmp_path / "federation.yaml").write_text(text)
    code, out, _ = flower_hpc("doctor", "hospital", "--json")
    found = {each["check"]: each for each in json.loads(out)}
    assert code == 0
    assert found["gateway"]["state"] == "warning"
    assert "a node that calls it calls itself" in found["gateway"]["found"]
    assert found["keys"]["found"] == "of 2 nodes, which others start: made at the first `up`"


def test_the_doctor_knows_that_there_are_keys(flower_hpc, known):
    found = {each["check"]: each for each in json.loads(flower_hpc("doctor", "hospital", "--json")[1])}
    assert "`flower-hpc bundle hospital` hands them over" in found["keys"]["found"]


def test_who_is_in_a_cluster_is_asked_there(flower_hpc, tmp_path):
    more = "superlink: {launcher: kubernetes, image: 'i:1', namespace: fl}\n"
    (tmp_path / "federation.yaml").write_text(FILE + more)
    code, _, err = flower_hpc("bundle", "hospital")
    assert (code, "-- flower-hpc bundle hospital" in err) == (2, True)


def test_what_is_not_wanted_is_withdrawn_until_it_is_again(tmp_path):
    state = StateDir(tmp_path / "lab")
    state.create()
    for name in ("a-0", "a-1", "b-0"):
        ensure_node_key(state.keys, name)
    gateway = {"address": "x", "port": 8443}
    handed, here = {"launcher": "handed", "nodes": 2}, {"nodes": 1}
    with_it = FederationConfig.parse({"gateway": gateway, "sites": {"a": handed, "b": here}}, "f")
    without = FederationConfig.parse({"gateway": gateway, "sites": {"b": here}}, "f")
    known = ["a-0", "a-1", "b-0"]

    def withdrawn(config, wanted, keeper):
        keeper.tick(config, known, dict.fromkeys(wanted))
        return sorted(json.loads(state.withdrawn.read_text())) if state.withdrawn.exists() else None

    keeper = Withdrawing(state)
    assert withdrawn(with_it, known, keeper) is None  # nothing to say
    assert withdrawn(with_it, ["a-0"], keeper) == ["a-1"]  # b-0 is ours, and is ended
    assert json.loads(state.withdrawn.read_text()) == {"a-1": fingerprint_of(state.keys, "a-1")}
    assert withdrawn(without, [], keeper) == ["a-0", "a-1"]
    assert withdrawn(without, [], Withdrawing(state)) == ["a-0", "a-1"]  # another controller
    assert withdrawn(with_it, known, Withdrawing(state)) == []
    state.withdrawn.write_text("[")
    assert withdrawn(with_it, ["a-0", "b-0"], Withdrawing(state)) == ["a-1"]


@pytest.mark.parametrize(
    "content", ['{"a-0": {}}', "[1, 2]", '{"a-0": 3}', '{"a-0": {"command": "x", "env": {}}}']
)
def test_a_bundle_of_another_kind_is_one_line(tmp_path, content):
    (tmp_path / "nodes.json.gz").write_bytes(gzip.compress(content.encode()))
    (tmp_path / "a-0.key").write_text("")
    with pytest.raises(LaunchError, match="is damaged") as error:
        unpack(tmp_path, "a-0")
    assert "\n" not in str(error.value)


# -- the whole ---------------------------------------------------------------------------------------

WHOLE = """
name: lab
gateway: {{host: 127.0.0.1, address: 127.0.0.1, port: {port}}}
partitions: 3
sites:
  here: {{nodes: 1}}
  hospital: {{launcher: handed, nodes: 1}}
"""


@pytest.fixture
def lab(tmp_path):
    (tmp_path / "federation.yaml").write_text(WHOLE.format(port=free_port()))
    lab = Lab(tmp_path, "lab")
    yield lab
    lab("down")
    assert not left_of(tmp_path)


@pytest.fixture
def elsewhere(tmp_path):
    """Start nodes as their owner does, by the command that `bundle` printed."""
    started = []
    env = {key: value for key, value in os.environ.items() if not key.startswith("FLOWER_HPC_")}
    env |= {"HOME": str(tmp_path / "other"), "FLWR_TELEMETRY_ENABLED": "0"}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"

    def start(command, folder):
        with (tmp_path / "node.log").open("ab") as log:
            words = ["bash", "-c", f"exec {command}"]
            started.append(subprocess.Popen(words, cwd=folder, env=env, stdout=log, stderr=log))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.wait()


@pytest.mark.federation
@pytest.mark.timeout(600)
def test_others_start_a_node_and_it_takes_part(lab, elsewhere, tmp_path):
    began = time.monotonic()
    lab("up")
    assert time.monotonic() - began < 100  # it waits for nobody
    assert lab.status()["state"] == "ready"
    assert lab.node("hospital-0")["state"] == "queued"
    assert "flower-hpc bundle hospital" in lab("status")

    (command,) = lab("bundle", "hospital", "--out", "there").splitlines()
    node = elsewhere(command, tmp_path / "there")
    until(lambda: lab.node("hospital-0")["state"] == "online", 90)
    lab("run", "benchmark", "-c", "num-rounds=1", "--name", "both")
    found = {e["node"] for e in lab.events("both") if e["event"] in ("reply_accepted", "reply_late")}
    assert found == {"here-0", "hospital-0"}
    assert "is where it was started" in lab("logs", "hospital-0", code=1)
    home = tmp_path / "other/flower-hpc"
    assert "hospital-0 started" in (home / "logs/hospital-0.log").read_text()
    assert stat.S_IMODE(home.stat().st_mode) == 0o700

    node.send_signal(signal.SIGTERM)
    assert node.wait(60) == 0, (tmp_path / "node.log").read_text()
    until(lambda: lab.node("hospital-0")["state"] == "queued", 20)
    assert "it signed off, and waits to be started again" in lab.node("hospital-0")["reason"]
    assert [fact["state"] for fact in lab.facts("hospital-0")] == [
        "pending",
        "running",
        "preempted",
        "pending",
    ]

    node = elsewhere(command, tmp_path / "there")
    until(lambda: lab.node("hospital-0")["state"] == "online", 90)
    assert "`flower-hpc bundle hospital`" in lab("scale", "hospital", "2") + lab("status")
    began = time.monotonic()
    lab("down")
    assert time.monotonic() - began < 30
    assert node.poll() is None  # nobody here ends it
    lab("up")
    until(lambda: lab.node("hospital-0")["state"] == "online", 120)  # it has waited for the gateway
    lab("scale", "hospital", "0")  # withdrawn, though its owner goes on with it
    until(lambda: "403" in (home / "logs/hospital-0.log").read_text(), 60)
    lab("run", "benchmark", "-c", "num-rounds=1", "--strategy", "deadline(30)", "--name", "without")
    assert {e["node"] for e in lab.events("without") if e["event"] == "reply_accepted"} == {"here-0"}
    lab("scale", "hospital", "1")
    if node.poll() is not None:
        node = elsewhere(command, tmp_path / "there")
    until(lambda: lab.node("hospital-0")["state"] == "online", 120)
    node.send_signal(signal.SIGTERM)
    assert node.wait(60) == 0
