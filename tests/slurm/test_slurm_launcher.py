"""The Slurm launcher on a real Slurm: what any launcher does, and what only this one has to do."""

import json
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from flower_hpc.errors import LaunchError
from flower_hpc.launchers import JobSpec, JobState, SlurmLauncher, SlurmOptions, slurm_queue
from launcher_suite import LauncherSuite

# as a SuperNode that gets a message at once, works until it is told to stop, and signs off on SIGINT
WORKER = """
import os, pathlib, signal, sys, time
stop = pathlib.Path("stop")
def leave(number, frame):
    print("signed off", flush=True)
    sys.exit()
signal.signal(signal.SIGINT, leave)
print("SuperNode ID: 7", flush=True)
print("Receiving: train message", flush=True)
while not stop.exists():
    time.sleep(0.05)
time.sleep(0.5)
print("Sent successfully", flush=True)
time.sleep(300)
"""
SEEN = "import json, os; print(json.dumps([dict(os.environ), sorted(os.sched_getaffinity(0))]))"


def launcher_of(options, folder, name="suite", **more):
    return SlurmLauncher(options, job_name=name, memory=folder / "memory.json", poll_s=1, **more)


class TestSlurm(LauncherSuite):
    patience_s = 60

    @pytest.fixture
    def options(self, slurm, tmp_path):
        return partial(SlurmOptions, folder=tmp_path / "jobs", minutes=5, mem="100M")

    @pytest.fixture
    def make(self, options, tmp_path):
        return partial(launcher_of, options(), tmp_path)

    @pytest.fixture
    def made(self, tmp_path):
        """A launcher with other options, closed at the end."""
        launchers = []

        def make(options, **more):
            launchers.append(launcher_of(options, tmp_path, "other", **more))
            return launchers[-1]

        yield make
        for launcher in launchers:
            launcher.close()

    # where this one differs, on purpose

    def test_rendering_starts_nothing(self, launcher, python, tmp_path):
        words = launcher.render(python("print('it works')"))
        assert "#SBATCH --time=5" in words
        assert "it works" in words
        assert not (tmp_path / "ä log").exists()

    def test_the_environment_that_it_is_submitted_from_arrives(self, launcher, python, monkeypatch):
        monkeypatch.setenv("A_SECRET", "token")
        job = launcher.submit(python(SEEN))
        assert self.ended(launcher, job).state is JobState.SUCCEEDED, launcher.logs(job)
        seen, _ = json.loads(launcher.logs(job))
        assert "A_SECRET" not in seen
        # nor is an app's own srun or MPI to believe that it is part of the step
        assert [name for name in seen if name.startswith(("SLURM", "SUBMITIT", "SRUN", "PMI"))] == [
            "SLURM_CONF"
        ]
        assert seen["OMP_NUM_THREADS"] == "1"
        assert not Path(seen["TMPDIR"]).exists()

    def test_exit_codes_become_states(self, launcher, python):
        good, bad = launcher.submit(python("pass")), launcher.submit(python("raise SystemExit(3)"))
        assert self.ended(launcher, good).state is JobState.SUCCEEDED
        assert self.ended(launcher, bad).state is JobState.FAILED
        assert "PilotError: exit code 3" in launcher.logs(bad)

    # what only this one has to do

    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            ({"partition": "nowhere"}, "invalid partition specified: nowhere"),
            ({"gpus": "a100:1"}, "Requested node configuration is not available"),
            ({"mem": "9000G"}, "Memory specification can not be satisfied"),
            ({"options": {"nonsense": "1"}}, "unrecognized option '--nonsense=1'"),
            ({"constraint": "moon"}, "Invalid feature specification"),
            # pending for ever, as the reason alone tells; which one Slurm gives depends on its mood
            ({"partition": "short", "minutes": 9}, "it would wait for ever: Partition"),
        ],
    )
    def test_a_refusal_is_one_line_in_slurms_words(self, options, made, python, wrong, words):
        launcher = made(options(**wrong))
        job = launcher.submit(python("pass"))
        status = self.ended(launcher, job)
        launcher.cancel(job, force=True)
        assert (status.state, status.refused) == (JobState.FAILED, True)
        assert words in status.reason
        assert "\n" not in status.reason

    def test_an_account_is_refused_in_slurms_words(self, slurm_with_accounting, tmp_path, made, python):
        launcher = made(SlurmOptions(folder=tmp_path / "jobs", account="nobody's"))
        job = launcher.submit(python("pass"))
        assert "Invalid account" in self.ended(launcher, job).reason
        launcher = made(SlurmOptions(folder=tmp_path / "jobs", account="fl", qos="normal"))
        job = launcher.submit(python("pass"))
        assert self.ended(launcher, job).state is JobState.SUCCEEDED

    def test_a_folder_that_cannot_be_written_is_one_line(self, slurm, tmp_path, made, python):
        (tmp_path / "file").write_text("")
        launcher = made(SlurmOptions(folder=tmp_path / "file" / "jobs"))
        status = self.ended(launcher, launcher.submit(python("pass")))
        assert status.refused
        assert "Not a directory" in status.reason

    def test_jobs_together_are_one_array_and_one_squeue_a_poll(self, launcher, python, tmp_path):
        specs = [
            python(WORKER, name=f"n{i}", cwd=tmp_path / f"n{i}", log=tmp_path / f"n{i}.log") for i in range(6)
        ]
        jobs = [launcher.submit(spec) for spec in specs]
        self.until(lambda: all(launcher.status(job).state is JobState.RUNNING for job in jobs))
        ids = {launcher.status(job).job.partition("_")[0] for job in jobs}
        assert len(ids) == 1
        before = dict(launcher.queue.calls)
        launcher.step()
        assert launcher.queue.calls["squeue"] - before["squeue"] == 1
        assert launcher.queue.calls.get("sacct", 0) == 0
        assert not list((tmp_path / "jobs").glob(".submission_file*"))

    @pytest.mark.parametrize("how", ["scancel", "USR2"])
    def test_work_is_handed_in_before_it_leaves(self, slurm, launcher, python, tmp_path, how):
        job = launcher.submit(python(WORKER, cwd=tmp_path / "n", log=tmp_path / "n.log"))
        self.until(lambda: "Receiving" in launcher.logs(job))
        number = launcher.status(job).job
        slurm.run("scancel", *(["-s", "USR2"] if how == "USR2" else []), number)
        state = self.ended(launcher, job).state
        words = (tmp_path / "n.log").read_text()
        assert words.index("Sent successfully") < words.index("signed off")
        assert words.count("signed off") == 1
        assert state is (JobState.SUCCEEDED if how == "USR2" else JobState.CANCELLED)

    def test_a_federation_that_is_taken_down_is_not_worked_for(self, launcher, python, tmp_path):
        job = launcher.submit(python(WORKER, cwd=tmp_path / "n", log=tmp_path / "n.log"))
        self.until(lambda: "Receiving" in launcher.logs(job))
        (tmp_path / "down").touch()
        launcher.cancel(job)
        self.ended(launcher, job)
        words = (tmp_path / "n.log").read_text()
        assert "signed off" in words
        assert "Sent" not in words

    def test_a_preempted_job_comes_back_with_a_log_of_its_own(self, slurm, options, made, python, tmp_path):
        launcher = made(options(partition="preempt"))
        job = launcher.submit(python(WORKER, cwd=tmp_path / "n", log=tmp_path / "n.log"))
        self.until(lambda: "SuperNode ID" in launcher.logs(job))
        self.until(lambda: launcher.status(job).state is JobState.RUNNING)
        slurm.run("scontrol", "requeue", launcher.status(job).job)
        self.until(lambda: launcher.status(job).state is JobState.PENDING)
        assert "SuperNode ID" not in launcher.logs(job)
        self.until(lambda: "SuperNode ID" in launcher.logs(job))
        assert (tmp_path / "n.log").read_text().count("=== job started") == 2
        launcher.cancel(job)
        self.ended(launcher, job)

    def test_a_killed_step_is_seen_with_its_reason(self, slurm, launcher, python, tmp_path):
        job = launcher.submit(python("import os, signal; os.kill(os.getppid(), signal.SIGKILL)"))
        status = self.ended(launcher, job)
        assert status.state is JobState.FAILED
        assert "NonZeroExitCode" in status.reason

    def test_a_second_job_of_a_name_makes_the_first_leave(self, launcher, python, tmp_path):
        spec = python(WORKER, cwd=tmp_path / "n", log=tmp_path / "n.log")
        first = launcher.submit(spec)
        self.until(lambda: "SuperNode ID" in launcher.logs(first))
        second = launcher.submit(spec)
        assert self.ended(launcher, first).state is JobState.SUCCEEDED
        assert not launcher.status(second).state.final

    def test_jobs_that_nobody_noted_are_cancelled(self, slurm, make, python, tmp_path):
        self.elsewhere(make, python("import time; print('child', 0, flush=True); time.sleep(300)"))
        (tmp_path / "memory.json").unlink()
        assert self.adopted_anew(make) == {}
        self.until(lambda: not slurm.run("squeue", "-h", "-n", "suite", "-o", "%i"))

    def test_gpus_of_the_allocation_alone_are_seen(self, slurm, options, made, python):
        launcher = made(options(partition="gpu", gpus="fake:1"))
        job = launcher.submit(python("import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"))
        self.ended(launcher, job)
        assert launcher.logs(job).strip() in ("0", "1")

    def test_setup_and_container_come_before_python(self, options, made, python):
        launcher = made(options(setup=("export GREETING='a b'",), container="env INSIDE=yes"))
        job = launcher.submit(python("import os; print(os.environ['GREETING'], os.environ['INSIDE'])"))
        self.ended(launcher, job)
        assert launcher.logs(job).strip() == "a b yes"

    def test_a_slurm_that_does_not_answer_changes_nothing(self, options, made, python):
        down = []

        def run(command):
            if down:
                raise LaunchError("squeue: Unable to contact slurm controller (connect failure)")
            return slurm_queue.run(command)

        launcher = made(options(), run=run)
        job = launcher.submit(python("import time; time.sleep(300)"))
        self.until(lambda: launcher.status(job).state is JobState.RUNNING)
        down.append(True)
        self.until(lambda: "Unable to contact" in launcher.trouble)
        assert launcher.status(job).state is JobState.RUNNING
        launcher.cancel(job)  # and is not forgotten
        down.clear()
        assert self.ended(launcher, job).state is JobState.CANCELLED
        self.until(lambda: not launcher.trouble)


def spec_of(tmp_path, **more):
    command = (sys.executable, "-c", "pass")
    return JobSpec(name="n", command=command, cwd=tmp_path / "n", log=tmp_path / "n.log", **more)


def test_without_slurm_a_submission_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    launcher = launcher_of(SlurmOptions(folder=tmp_path / "jobs"), tmp_path)
    job = launcher.submit(spec_of(tmp_path))
    deadline = time.monotonic() + 20
    while not launcher.status(job).state.final and time.monotonic() < deadline:
        time.sleep(0.05)
    launcher.close()
    assert "srun" in launcher.status(job).reason


def test_without_submitit_a_submission_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit.core.utils", None)
    launcher = launcher_of(SlurmOptions(folder=tmp_path / "jobs"), tmp_path)
    job = launcher.submit(spec_of(tmp_path))
    deadline = time.monotonic() + 20
    while not launcher.status(job).state.final and time.monotonic() < deadline:
        time.sleep(0.05)
    launcher.close()
    assert launcher.status(job).refused
    assert "pip install 'flower-hpc[slurm]'" in launcher.status(job).reason
