"""The doctor without a cluster: what is wrong has a finding, and each problem says what mends it."""

import json
import socket
import sys
from pathlib import Path

import pytest

from flower_hpc.errors import LaunchError
from flower_hpc.federation import FederationConfig
from flower_hpc.federation.doctor import machine as doctor_machine
from flower_hpc.federation.doctor import report as doctor_report
from flower_hpc.federation.doctor import slurm as doctor_slurm
from flower_hpc.federation.doctor.finding import Health, ok
from flower_hpc.federation.doctor.folders import borrowed, filesystem, is_local, is_network
from flower_hpc.federation.doctor.log import mend_of_log, silence
from flower_hpc.federation.doctor.probe import Outcome
from flower_hpc.federation.doctor.trial_gateway import way_in
from flower_hpc.federation.state import StateDir
from flower_hpc.launchers import JobState, JobStatus, SlurmOptions
from flower_hpc.launchers.probe import PACKAGES, Probe, Way, dial, gpus, versions
from flower_hpc.launchers.slurm_cluster import Nodes, gpus_of, megabytes, nodes, walls

LOCAL = "name: lab\nsites:\n  here: {nodes: 1}\n"
SLURM = LOCAL + "  hpc: {launcher: slurm, nodes: 2}\n"


@pytest.fixture
def no_slurm(monkeypatch):
    """A PATH with Python's programs alone."""
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))


def by_check(out):
    return {each["check"]: each for each in json.loads(out)}


def config(text, **more):
    return FederationConfig.parse({"name": "lab", "sites": {"here": {"nodes": 1}}} | more, text)


def test_this_machine_is_well(flower_hpc, tmp_path):
    (tmp_path / "federation.yaml").write_text(LOCAL + "security: {shared_host: accept}\n")
    code, out, _ = flower_hpc("doctor", "--json")
    found = json.loads(out)
    assert code == 0, out
    assert {each["site"] for each in found} == {"this machine", "here"}
    assert all(set(each) == {"site", "check", "state", "found", "mend"} for each in found)
    assert all(bool(each["mend"]) == (each["state"] != "ok") for each in found)
    assert not (tmp_path / "home").exists()


def test_lines_for_people_and_an_exit_code_for_scripts(flower_hpc, tmp_path):
    text = LOCAL.replace("nodes: 1", "nodes: 1, data_dir: /no/such") + "security: {shared_host: accept}\n"
    (tmp_path / "federation.yaml").write_text(text)
    code, out, _ = flower_hpc("doctor")
    lines = out.splitlines()
    assert code == 1
    assert "  ✗ data: /no/such is no such folder" in lines
    assert lines[lines.index("  ✗ data: /no/such is no such folder") + 1].startswith("      mend: data_dir: ")
    assert any(line.startswith("  ✓ Python: ") for line in lines)


def test_a_site_that_is_not_there_is_one_line(flower_hpc, tmp_path):
    (tmp_path / "federation.yaml").write_text(LOCAL)
    code, out, err = flower_hpc("doctor", "nope")
    assert (code, out) == (2, "")
    assert err == "error: site must be one of: here; got 'nope'\n"


def test_without_slurm_it_says_where_to_run_it(flower_hpc, tmp_path, no_slurm):
    (tmp_path / "federation.yaml").write_text(SLURM)
    code, out, _ = flower_hpc("doctor", "hpc", "--json")
    found = by_check(out)
    assert code == 1
    assert found["Slurm's commands"]["state"] == "problem"
    assert "sbatch, srun, squeue, scancel" in found["Slurm's commands"]["found"]
    assert "module load slurm" in found["Slurm's commands"]["mend"]
    assert not (tmp_path / "home").exists()


def test_a_shared_folder_that_cannot_be_written_is_a_problem(tmp_path):
    (tmp_path / "file").touch()
    found = doctor_slurm.shared_folder(tmp_path / "file" / "below")
    assert (found.state, found.mend[:7]) == (Health.PROBLEM, "shared:")


def test_a_borrowed_folder_goes_with_all_that_was_made_for_it(tmp_path):
    (tmp_path / "kept").mkdir()
    with borrowed(tmp_path / "kept" / "a" / "b") as folder:
        (folder / "x").mkdir()
        (folder / "x" / "y").touch()
        assert folder.stat().st_mode & 0o077 == 0
    assert list(tmp_path.rglob("*")) == [tmp_path / "kept"]


def test_file_systems_are_known_by_their_type(tmp_path):
    assert filesystem(tmp_path / "not" / "yet") == filesystem(tmp_path) != ""
    assert all(map(is_network, ("nfs4", "lustre", "gpfs", "beegfs", "fuse.sshfs")))
    assert all(map(is_local, ("ext4", "tmpfs", "overlay")))
    assert not is_local("unheard-of")


def test_ports_that_cannot_be_had_are_told():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        one = config("x", gateway={"host": "127.0.0.1", "port": port})
        assert "is taken" in doctor_machine.gateway_port(one, is_up=False).found
        assert doctor_machine.gateway_port(one, is_up=True).state is Health.OK
        two = config("x", superlink={"port": port}, security={"network": "host"})
        assert str(port) in doctor_machine.superlink_port(two, is_up=False).found
    elsewhere = doctor_machine.gateway_port(config("x", gateway={"host": "192.0.2.1"}), is_up=False)
    assert elsewhere.state is Health.PROBLEM


def test_versions_are_compared_as_numbers():
    wanted = doctor_machine.supported("flwr")
    assert doctor_machine.within("1.41.0", wanted)
    assert not doctor_machine.within("1.9.0", wanted)
    assert not doctor_machine.within("1.100.0", "<1.43,>=1.41")


def test_a_state_folder_that_others_may_change_is_a_warning(tmp_path):
    tmp_path.chmod(0o777)
    found = doctor_machine.state_folder(tmp_path)
    assert (found.state, found.mend) == (Health.WARNING, f"chmod go-w {tmp_path}")
    (tmp_path / "file").touch()
    assert doctor_machine.state_folder(tmp_path / "file").state is Health.PROBLEM


def test_nodes_are_read_from_sinfo_and_lack_what_is_too_much():
    lines = "3|4|4000|(null)|idle\n1|64|512000|gpu:a100:4(S:0-1),gpu:2|mixed\n1|4|4000|(null)|down*\n"
    small, large, down = nodes(lambda command: lines, ["cpu"])
    assert (small.usable, large.usable, down.usable) == (True, True, False)
    assert large.gpus == {"a100": 4, "": 2}
    options = SlurmOptions(folder=Path(), cpus=8, mem="16G", gpus="a100:4")
    assert large.lacks(options) == ""
    assert small.lacks(options) == "4 CPUs, not 8"
    assert "a100:4, gpu:2; not h100:1" in large.lacks(SlurmOptions(folder=Path(), gpus="h100:1"))
    assert [megabytes(text) for text in ("512", "2G", "1T", "1024K", "3GB")] == [512, 2048, 1048576, 1, 3072]
    assert gpus_of("craynetwork:4,gpu:1g.5gb:7") == {"1g.5gb": 7}


def test_limits_of_account_and_qos_are_read():
    def run(command):
        return "fl|1:00:00\nother|10\n" if "assoc" in command else "high|1-00:00:00\n"

    found = walls(run, "me", SlurmOptions(folder=Path(), account="fl", qos="high"))
    assert found == {"account fl": 60, "qos high": 1440}

    def fails(command):
        raise LaunchError("no accounting")

    assert walls(fails, "me", SlurmOptions(folder=Path(), account="fl")) == {}


class StubCluster:
    chosen, unknown, walls = ("gpu", "cpu"), (), {}
    settings = {"PreemptType": "preempt/partition_prio"}  # noqa: RUF012

    def __init__(self, **partition):
        self.partitions = {name: partition for name in self.chosen}
        self.options = SlurmOptions(folder=Path(), minutes=120)
        self.nodes = [Nodes(1, 4, 4000, {}, "down*")]

    def words(self):
        return {"partitions": "cpu, gpu"}


def test_what_a_partition_says_is_judged():
    down = StubCluster(State="DOWN", MaxTime="1:00:00", PreemptMode="CANCEL", GraceTime="30")
    assert doctor_slurm.partition(down).state is Health.PROBLEM
    assert "time: 60 or less" in doctor_slurm.time_limit(down).mend
    assert doctor_slurm.size(down).state is Health.WARNING
    (found,) = doctor_slurm.preemption(down)
    assert (found.state, "CANCEL" in found.found) == (Health.WARNING, True)
    calm = StubCluster(State="UP", MaxTime="UNLIMITED", PreemptMode="OFF")
    assert doctor_slurm.time_limit(calm).state is Health.OK
    assert doctor_slurm.kill_wait({"KillWait": "30 sec"}).state is Health.OK
    assert doctor_slurm.kill_wait({"KillWait": "3 sec"}).state is Health.WARNING


@pytest.mark.parametrize(
    ("log", "mend"),
    [
        ("", "shared:"),
        ("FileNotFoundError: [Errno 2] No such file or directory: '/x/7_submitted.pkl'", "shared:"),
        ("/x/python: Error: No module named submitit", "install flower-hpc[slurm]"),
        ("slurmstepd: error: execve(): /x/python: No such file or directory", "python:"),
        ("Lmod has detected the following error: The following module(s) are unknown: x", "setup:"),
        ("slurmstepd: error: couldn't chdir to `/x': No such file or directory: going to /tmp", "setup,"),
    ],
)
def test_a_log_tells_what_mends(log, mend):
    assert mend_of_log(log).startswith(mend)


def test_a_probe_that_waits_is_a_warning_and_one_that_waits_for_ever_a_problem():
    waits = silence(Outcome(JobStatus(JobState.PENDING, "Resources", starts_at=1e9)))
    assert (waits.state, waits.found[:31]) == (Health.WARNING, "still in the queue: Resources, ")
    never = silence(Outcome(JobStatus(JobState.FAILED, "it would wait for ever", refused=True)))
    assert never.state is Health.PROBLEM
    hangs = silence(Outcome(JobStatus(JobState.RUNNING, where="n1"), log="hello\n"))
    assert (hangs.state, hangs.found) == (Health.PROBLEM, "it runs on n1 without a report. hello")


def test_versions_that_differ_are_told_by_how_much_they_matter():
    here = {"Python": "3.12.1", "flower-hpc": "1", "flwr": "1.41.0", "numpy": "2"}
    for there, state in (
        ({"Python": "3.12.9"}, Health.OK),
        ({"Python": "3.11.1"}, Health.WARNING),
        ({"numpy": None}, Health.WARNING),
        ({"flwr": None}, Health.PROBLEM),
        ({"flower-hpc": "2"}, Health.PROBLEM),
    ):
        (found,) = doctor_report.versions(here | there, here)
        assert found.state is state


def test_gpus_are_counted(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert gpus({"CUDA_VISIBLE_DEVICES": "0,1"}) == {"given": 2, "driver": None}
    for seen, state in (
        ({"given": 2, "driver": 2}, Health.OK),
        ({"given": 2, "driver": None}, Health.WARNING),
        ({"given": 2, "driver": 0}, Health.PROBLEM),
        ({"given": 1, "driver": 2}, Health.PROBLEM),
    ):
        assert doctor_report.gpus(seen, 2).state is state


def test_the_nodes_clock_is_only_judged_by_what_is_known():
    outcome = Outcome(JobStatus(JobState.RUNNING), after=100.0, before=110.0)
    assert doctor_report.clock(104.0, outcome).state is Health.OK
    assert doctor_report.clock(96.0, outcome).state is Health.OK
    assert doctor_report.clock(90.0, outcome).state is Health.WARNING
    assert doctor_report.clock(200.0, outcome).found == "the node's differs by 90 s at least"


def test_a_node_tells_how_far_it_came_on_its_way(tmp_path):
    remote = {"hpc": {"launcher": "slurm", "nodes": 1}}
    gateway = {"host": "127.0.0.1", "address": "127.0.0.1"}
    one = config("x", sites=remote, gateway=gateway)
    with way_in(one, "hpc", StateDir(tmp_path), is_up=False) as (way, stands_in):
        assert stands_in
        assert dial(way) == {}
        with way_in(one, "hpc", StateDir(tmp_path), is_up=False) as (other, _):
            assert dial(Way(way.host, way.port, other.ca))["stage"] == "tls"
    assert dial(way)["stage"] == "tcp"
    assert dial(Way("no-such-host.invalid", 1, way.ca))["stage"] == "name"
    for stage in ("tcp", "tls", "name"):
        found = doctor_report.gateway({"stage": stage, "words": "no"}, way, stands_in=False)
        assert (found.state, bool(found.mend)) == (Health.PROBLEM, True)


def test_a_probe_reports_of_where_it_runs(tmp_path):
    Probe(report=tmp_path / "report.json", data_dir=str(tmp_path / "none"))()
    seen = json.loads((tmp_path / "report.json").read_text())
    assert seen["versions"] == versions()
    assert set(seen["versions"]) == {"Python", *PACKAGES}
    assert seen["data_dir"] is False
    assert seen["scratch"]["free_gb"] > 0
    assert all(seen["programs"].values())
    assert list(tmp_path.iterdir()) == [tmp_path / "report.json"]


def test_what_is_found_is_one_line():
    assert ok("x", "a\n  b").found == "a b"
