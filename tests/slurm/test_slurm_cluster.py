"""The cluster of these tests is real: it schedules, preempts, refuses, loses nodes, and leaves nothing."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from slurm.cluster import SlurmCluster, SlurmError
from slurm.conf import CGROUPS_V1, Knobs
from slurm.conftest import REQUIRE, needed, no_jobs_left

TESTS = Path(__file__).parents[1]


@pytest.fixture
def submit(tmp_path):
    """Submit a one-line job; returns its id and where it prints."""

    def submit_to(cluster, line, *options):
        out = tmp_path / f"{time.monotonic_ns()}.out"
        words = ["sbatch", "--parsable", "-D", str(tmp_path), "-o", str(out), "--open-mode=append"]
        return cluster.run(*words, *options, "--wrap", line).strip(), out

    return submit_to


def state_of(cluster, job):
    return cluster.run("squeue", "-h", "-t", "all", "-j", job, "-o", "%T").strip()


def lines(path):
    return path.read_text().split() if path.exists() else []


def test_jobs_run_on_the_nodes_and_are_told_which(slurm, submit):
    job, out = submit(slurm, "srun printenv SLURMD_NODENAME", "--nodes=2", "-p", "cpu")
    slurm.wait_until(lambda: state_of(slurm, job) == "COMPLETED", 30)
    assert len(set(lines(out))) == 2
    assert set(lines(out)) < set(slurm.knobs.names)


def test_gpus_are_shared_out(slurm, submit):
    line = "echo $SLURMD_NODENAME=$CUDA_VISIBLE_DEVICES; sleep 2"
    jobs = [submit(slurm, line, "-p", "gpu", "--gres=gpu:1") for _ in range(2)]
    slurm.wait_until(lambda: all(state_of(slurm, job) == "COMPLETED" for job, _ in jobs), 30)
    assert sorted(word for _, out in jobs for word in lines(out)) == ["vn4=0", "vn4=1"]


def test_a_job_of_low_priority_is_preempted_and_runs_again(slurm, submit):
    whole = [f"--cpus-per-task={slurm.knobs.cpus}", "-w", "vn1"]
    low, out = submit(slurm, "echo began; sleep 60", "-p", "preempt", *whole)
    slurm.wait_until(lambda: lines(out), 30)
    high, _ = submit(slurm, "sleep 1", "-p", "cpu", *whole)
    slurm.wait_until(lambda: state_of(slurm, high) == "COMPLETED", 60)
    slurm.wait_until(lambda: lines(out).count("began") == 2, 60)
    assert "Restarts=1" in slurm.run("scontrol", "show", "job", low)
    slurm.cancel_all()


def test_a_node_that_crashed_is_missed_and_can_return(slurm_cluster, submit):
    slurm = slurm_cluster(nodes=2, gpu_nodes=0, slurmd_timeout_s=5)
    job, out = submit(slurm, "echo began; sleep 60", "-w", "vn1", "--no-requeue")
    slurm.wait_until(lambda: lines(out), 30)
    slurm.crash("vn1")
    assert not slurm.processes("vn1")
    assert state_of(slurm, job) == "RUNNING"  # nobody told
    slurm.wait_until(lambda: slurm.node_state("vn1").startswith("down"), 60)
    assert state_of(slurm, job) == "NODE_FAIL"
    slurm.start("vn1")
    assert slurm.node_state("vn1") == "idle"


def test_accounting_remembers_and_refuses(slurm_with_accounting, submit):
    slurm = slurm_with_accounting
    job, _ = submit(slurm, "true", "-A", "fl", "--qos=high")
    told = ["sacct", "-n", "-P", "-X", "-j", job, "-o", "State,Account,QOS"]
    slurm.wait_until(lambda: slurm.run(*told).strip() == "COMPLETED|fl|high", 30)
    with pytest.raises(SlurmError, match="Invalid account"):
        submit(slurm, "true", "-A", "unknown")
    with pytest.raises(SlurmError, match="Invalid qos"):
        submit(slurm, "true", "--qos=unknown")


def test_without_accounting_sacct_fails(slurm):
    with pytest.raises(SlurmError, match="accounting storage is disabled"):
        slurm.run("sacct")


@pytest.mark.skipif(
    os.getuid() != 0 or not os.access(CGROUPS_V1, os.W_OK),
    reason="needs root and cgroups (v1) that it may write",
)
def test_with_cgroups_an_orphan_dies_with_its_job(slurm_cluster, submit):
    slurm = slurm_cluster(nodes=1, gpu_nodes=0, proctrack="cgroup")
    # the child gives its parent away, and its environment
    job, out = submit(slurm, "(setsid env -i sh -c 'echo $$; exec sleep 300' &); sleep 300")
    orphan = psutil.Process(int(slurm.wait_until(lambda: lines(out), 30)[0]))
    slurm.run("scancel", job)
    slurm.wait_until(lambda: not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE, 30)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_can_have_one():
    needed()
    # it changes its user itself: the other could not start this Python where it lies in root's home
    program = """
import os, tempfile
from slurm.cluster import SlurmCluster
os.setgroups([]), os.setgid(65534), os.setuid(65534)
with tempfile.TemporaryDirectory() as folder, SlurmCluster(folder, nodes=2) as cluster:
    print(cluster.run("srun", "-D", "/", "-p", "preempt", "-N2", "id", "-u").split())
    cluster.run("sbatch", "-D", "/", "-o", "/dev/null", "-w", "vn1", "--wrap", "sleep 100")
    cluster.wait_until(lambda: any("slurmstepd" in p.name() for p in cluster.processes("vn1")), 20)
    cluster.crash("vn1")
assert not cluster.processes()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=TESTS, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == "['65534', '65534']\n", done.stderr


def test_nothing_is_left(submit, tmp_path):
    needed()
    with SlurmCluster(tmp_path, nodes=2) as slurm:
        _, out = submit(slurm, "echo began; trap '' TERM; srun sleep 100")
        slurm.wait_until(lambda: lines(out), 30)
        assert len(slurm.processes()) > 5
        # a shell that talks to the cluster is no part of it
        mine = subprocess.Popen(["sleep", "100"], env=os.environ | slurm.env)
    assert not slurm.processes()
    assert not slurm.folder.exists()
    assert mine.poll() is None
    mine.kill()
    mine.wait()


def test_logs_of_a_failure_are_kept(tmp_path):
    needed()
    with pytest.raises(ZeroDivisionError), SlurmCluster(tmp_path, nodes=1, gpu_nodes=0) as slurm:
        _ = 1 / 0
    assert (slurm.folder / "log" / "slurmctld.log").exists()
    assert not (slurm.folder / "run").exists()
    with pytest.raises(SlurmError, match="what is left of one"):
        SlurmCluster(tmp_path).up()
    SlurmCluster.at(tmp_path).down()
    assert not slurm.folder.exists()


def test_a_job_left_behind_is_noticed_and_cancelled(slurm, submit):
    with pytest.raises(pytest.fail.Exception, match="left jobs behind"), no_jobs_left(slurm):
        submit(slurm, "sleep 100")
    assert not slurm.jobs()


def test_the_command_line_keeps_one_for_a_developer(tmp_path):
    needed()

    def cluster_py(*words):
        script = TESTS / "slurm" / "cluster.py"
        words = [sys.executable, str(script), *words, "--folder", str(tmp_path)]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    up = cluster_py("up", "--nodes", "2")
    try:
        slurm = SlurmCluster.at(tmp_path)
        assert up.stdout == f"export SLURM_CONF={slurm.env['SLURM_CONF']}\n", up.stderr
        assert slurm.knobs == Knobs(nodes=2)
        assert cluster_py("crash", "vn1").returncode == 0
        assert not slurm.processes("vn1")
        assert cluster_py("start", "vn1").returncode == 0
    finally:
        assert cluster_py("down").returncode == 0
    assert not slurm.processes()
    assert "no cluster at" in cluster_py("down").stderr


def test_a_missing_slurm_skips_or_fails_where_it_is_required(monkeypatch):
    monkeypatch.setattr("slurm.conftest.missing", lambda accounting: ["munged"])
    monkeypatch.delenv(REQUIRE, raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs munged"):
        needed()
    monkeypatch.setenv(REQUIRE, "1")
    with pytest.raises(pytest.fail.Exception, match="needs munged"):
        needed()


def test_a_cluster_that_does_not_come_up_says_why_and_leaves_nothing(tmp_path, monkeypatch):
    needed()
    monkeypatch.setattr("slurm.cluster.files", lambda *_: {"slurm.conf": ""})
    with pytest.raises(SlurmError, match="slurmctld -c: exit 1") as caught:
        SlurmCluster(tmp_path).up()
    assert "ClusterName needs to be specified" in caught.value.__notes__[0]
    assert not SlurmCluster(tmp_path).processes()


@pytest.mark.parametrize("knobs", [{"nodes": 1}, {"proctrack": "pgid"}, {"kill_wait_s": 10}])
def test_what_cannot_work_is_refused(tmp_path, knobs):
    with pytest.raises(ValueError, match="must"):
        SlurmCluster(tmp_path, **knobs)
