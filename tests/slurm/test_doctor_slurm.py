"""The doctor on a real Slurm: a good site has no problem, a wrong one its finding; nothing is left of it."""

import json
import os
import signal
import subprocess

import pytest

from processes import BIN
from slurm.conf import user_name

pytest.importorskip("submitit", reason="needs flower-hpc[slurm]")

SITE = {"launcher": "slurm", "nodes": 2, "partition": "cpu"}


@pytest.fixture
def doctor(tmp_path, shell):
    """Examine a site made of ``SITE`` and what is given; returns the exit code and findings by check."""

    def examine(*args, timeout=60, **site):
        file = write(tmp_path, **site)
        done = shell("flower-hpc", "doctor", "hpc", "-f", file, "--json", "--timeout", timeout, *args)
        assert done.stdout, done.stderr
        assert not list((tmp_path / "shared").rglob("*"))
        return done.returncode, {each["check"]: each for each in json.loads(done.stdout)}

    return examine


def write(tmp_path, **site):
    """A federation file; JSON is YAML."""
    (tmp_path / "shared").mkdir(exist_ok=True)
    full = SITE | {"shared": str(tmp_path / "shared")} | site
    file = tmp_path / "federation.yaml"
    file.write_text(json.dumps({"name": "lab", "sites": {"hpc": full}}))
    return file


def problems(found):
    return {check: each for check, each in found.items() if each["state"] == "problem"}


def test_a_good_site_has_no_problem(slurm, doctor):
    code, found = doctor(partition="gpu", gpus="fake:2", mem="1G", data_dir=".", container="env INSIDE=1")
    assert not problems(found)
    assert code == 0
    assert "reported from vn4" in found["probe job"]["found"]
    assert found["GPUs there"]["found"].startswith("2 asked for, 2 given")
    assert "in its stead" in found["gateway"]["found"]
    assert found["KillWait"]["state"] == "warning"  # the test cluster's is 3 s
    assert found["clock"]["state"] == "ok"
    assert {"shared folder there", "versions there", "programs there", "scratch", "data there"} <= set(found)


@pytest.mark.parametrize(
    ("site", "check", "found", "mend"),
    [
        ({"partition": "nope"}, "sbatch", "invalid partition", "partition: one of cpu, gpu, preempt"),
        ({"partition": "nope"}, "partition", "nope does not exist", "partition: one of cpu, gpu, preempt"),
        ({"partition": "gpu", "gpus": "a100:1"}, "nodes", "fake:2; not a100:1", "must fit one node: 4 CPUs"),
        ({"partition": "gpu", "gpus": "a100:1"}, "sbatch", "node configuration", "must fit one node: 4 CPUs"),
        ({"cpus": 64}, "nodes", "4 CPUs, not 64", "cpus, mem and gpus must fit"),
        ({"mem": "999G"}, "sbatch", "Requested node configuration", "cpus, mem, gpus"),
        ({"constraint": "cray"}, "sbatch", "Invalid feature", "constraint: features"),
        ({"options": {"nonsense": "1"}}, "sbatch", "unrecognized option", "options: long options"),
        ({"shared": "/dev/null/shared"}, "shared folder", "cannot be written", "shared: a folder"),
    ],
)
def test_what_cannot_work_is_told_without_a_job(slurm, doctor, site, check, found, mend):
    code, all_found = doctor(**site)
    one = problems(all_found)[check]
    assert code == 1
    assert found in one["found"]
    assert mend in one["mend"]
    assert "probe job" not in all_found


def test_a_time_above_the_limit_is_told_and_the_rest_is_probed(slurm, doctor):
    code, found = doctor(time="5:00:00")
    assert code == 1
    assert list(problems(found)) == ["time"]
    assert "300 minutes are above the 60 of partition cpu" in found["time"]["found"]
    assert found["time"]["mend"].startswith("time: 60 or less")
    assert found["probe job"]["state"] == "ok"


@pytest.mark.parametrize(
    ("site", "check", "found", "mend"),
    [
        ({"python": "/no/such/python"}, "probe job", "/no/such/python", "python: a Python that is"),
        ({"python": "/usr/bin/false"}, "probe job", "failed on vn", "setup, container and python"),
        ({"data_dir": "/no/such/data"}, "data there", "/no/such/data", "data_dir: a folder"),
    ],
)
def test_what_only_the_node_knows_is_told(slurm, doctor, site, check, found, mend):
    code, all_found = doctor(**site)
    assert code == 1
    assert list(problems(all_found)) == [check]
    assert found in all_found[check]["found"]
    assert all_found[check]["mend"].startswith(mend)


def test_setup_lines_that_fail_are_told(slurm, doctor):
    code, found = doctor(setup=["no-such-command"])
    assert code == 0
    assert found["setup"]["state"] == "warning"
    assert "no-such-command: command not found" in found["setup"]["found"]


def test_a_gateway_that_the_nodes_cannot_reach_is_told(slurm, doctor, tmp_path):
    file = write(tmp_path)
    config = json.loads(file.read_text()) | {"gateway": {"host": "127.0.0.1", "address": "127.0.0.9"}}
    other = tmp_path / "other.yaml"
    other.write_text(json.dumps(config))
    code, found = doctor("-f", other)
    assert code == 1
    assert list(problems(found)) == ["gateway"]
    assert "127.0.0.9" in found["gateway"]["found"]


def test_a_probe_that_waits_too_long_is_a_warning(slurm, doctor):
    code, found = doctor(options={"begin": "now+1hour"}, timeout=3)
    assert code == 0
    assert found["probe job"]["state"] == "warning"
    assert found["probe job"]["found"].startswith("still in the queue: BeginTime, expected start ")


def test_nodes_that_live_here_need_no_gateway_there(slurm, doctor):
    code, found = doctor(mode="on-demand")
    assert (code, found["probe job"]["state"], "gateway" in found) == (0, "ok", False)


def test_without_time_there_is_no_probe(slurm, doctor):
    code, found = doctor(timeout=0)
    assert (code, "probe job" in found) == (0, False)


def test_ctrl_c_leaves_nothing(slurm, tmp_path):
    file = write(tmp_path, options={"begin": "now+1hour"})
    command = [str(BIN / "flower-hpc"), "doctor", "hpc", "-f", str(file)]
    env = os.environ | {"FLOWER_HPC_HOME": str(tmp_path / "home")}
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    slurm.wait_until(lambda: any("doctor" in name for _, name, _ in slurm.jobs()), 30)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    assert not any("doctor" in name for _, name, _ in slurm.jobs())
    assert not list((tmp_path / "shared").rglob("*"))


def test_account_and_qos_are_judged_by_accounting(slurm_with_accounting, doctor):
    code, found = doctor(account="nobody")
    assert code == 1
    assert "nvalid account" in problems(found)["sbatch"]["found"]
    assert problems(found)["sbatch"]["mend"].startswith("account: one of fl")
    code, found = doctor(account="fl", qos="nobody")
    assert "nvalid qos" in problems(found)["sbatch"]["found"]
    assert problems(found)["sbatch"]["mend"] == "qos: one of high, normal, tiny"
    code, found = doctor(account="fl", qos="high")
    assert (code, problems(found)) == (0, {})


def test_a_federation_that_is_up_is_reached_by_its_own_gateway(slurm, doctor, shell, tmp_path):
    up = shell("flower-hpc", "up", write(tmp_path, nodes=1, poll_s=0.5, mem="500M"))
    assert up.returncode == 0, up.stderr
    try:
        done = shell("flower-hpc", "doctor", "hpc", "--json")
        found = {each["check"]: each for each in json.loads(done.stdout)}
        assert (done.returncode, problems(found)) == (0, {})
        assert found["gateway"]["found"].endswith("by TLS")
        assert "in its stead" not in found["gateway"]["found"]
    finally:
        shell("flower-hpc", "down")


def test_a_time_above_the_limit_of_a_qos_is_told(slurm_with_accounting, doctor):
    run = slurm_with_accounting.run
    run("sacctmgr", "-iQ", "add", "qos", "brief", "MaxWall=10")
    try:
        run("sacctmgr", "-iQ", "modify", "user", user_name(), "set", "QOS+=brief")
        code, found = doctor(account="fl", qos="brief", time=30, timeout=0)
        assert (code, list(problems(found))) == (1, ["time"])
        assert "30 minutes are above the 10 of qos brief" in found["time"]["found"]
    finally:
        run("sacctmgr", "-iQ", "delete", "qos", "brief")


def test_a_job_that_hangs_before_python_is_told_and_cancelled(slurm, doctor):
    code, found = doctor(setup=["echo so far", "sleep 1000"], timeout=4)
    assert code == 1
    assert "it runs on vn" in problems(found)["probe job"]["found"]
    assert found["probe job"]["found"].endswith("without a report. so far")
    assert found["probe job"]["mend"].startswith("setup lines that come to an end")
