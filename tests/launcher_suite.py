"""What any launcher does, written against the protocol: subclass it and give it a fixture ``make``."""

import json
import multiprocessing
import sys
import time

import pytest

from flower_hpc.launchers import Found, JobSpec, JobState

FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
print("child", child.pid, flush=True)
time.sleep(300)
"""
ODD = ["a b", "quo'te", 'dou"ble', "$HOME `id` \\ !", "ünïcödé ☃", "two\nlines", "-n", "", "{{x}}", "*"]
SAY = "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ['ODD'], os.getcwd()]))"


def alive(pid):
    """Whether the process runs; a zombie does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def submit_elsewhere(make, spec, ids):
    """Submit in a process that then ends."""
    launcher = make()
    job = launcher.submit(spec)
    deadline = time.monotonic() + 60
    while "child" not in launcher.logs(job) or launcher.status(job).state is not JobState.RUNNING:
        assert time.monotonic() < deadline, launcher.status(job)
        time.sleep(0.05)
    launcher.close()
    ids.put(job)


class LauncherSuite:
    """Subclasses provide ``make``: a picklable callable; all that it makes share one memory."""

    patience_s = 20
    at_once_s = 2.0

    @pytest.fixture
    def launcher(self, make):
        launcher, submit, jobs = make(), None, []
        submit = launcher.submit
        launcher.submit = lambda spec: jobs.append(submit(spec)) or jobs[-1]
        yield launcher
        for job in jobs:
            launcher.cancel(job, force=True)
            self.ended(launcher, job)
        launcher.close()

    @pytest.fixture
    def python(self, tmp_path):
        def spec(code, *arguments, **options):
            options = {"name": "job", "cwd": tmp_path / "a 'folder'", "log": tmp_path / "ä log"} | options
            return JobSpec(command=(sys.executable, "-c", code, *arguments), **options)

        return spec

    def until(self, condition):
        deadline = time.monotonic() + self.patience_s
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def ended(self, launcher, job):
        self.until(lambda: launcher.status(job).state.final)
        return launcher.status(job)

    def family(self, launcher, job):
        self.until(lambda: "child" in launcher.logs(job))
        return int(launcher.logs(job).split()[-1])

    def test_rendering_starts_nothing(self, launcher, python, tmp_path):
        words = launcher.render(python("print('it works')", env={"A": "b c"}))
        assert "A='b c'" in words
        assert "it works" in words
        assert not (tmp_path / "ä log").exists()

    def test_directory_variables_and_arguments_arrive_whatever_they_hold(self, launcher, python, tmp_path):
        job = launcher.submit(python(SAY, *ODD, env={"ODD": "".join(ODD)}, name="o'dd näme"))
        assert self.ended(launcher, job).state is JobState.SUCCEEDED, launcher.logs(job)
        assert json.loads(launcher.logs(job)) == [ODD, "".join(ODD), str(tmp_path / "a 'folder'")]

    def test_the_environment_that_it_is_submitted_from_arrives(self, launcher, python, monkeypatch):
        monkeypatch.setenv("FROM_OUTSIDE", "yes")
        job = launcher.submit(python("import os; print(os.environ['FROM_OUTSIDE'])"))
        self.ended(launcher, job)
        assert launcher.logs(job).strip() == "yes"

    def test_exit_codes_become_states(self, launcher, python):
        good, bad = launcher.submit(python("pass")), launcher.submit(python("raise SystemExit(3)"))
        assert self.ended(launcher, good).state is JobState.SUCCEEDED
        assert self.ended(launcher, bad).state is JobState.FAILED
        assert "3" in launcher.status(bad).reason

    def test_an_unknown_job_has_no_state_and_no_words(self, launcher):
        assert launcher.status("nobody").state is JobState.UNKNOWN
        launcher.cancel("nobody", force=True)
        assert launcher.logs("nobody") == ""

    def test_each_job_sees_its_own_end_of_a_log(self, launcher, python, tmp_path):
        for word in ("first", "second"):
            job = launcher.submit(python(f"import sys; print('{word}'); print('error', file=sys.stderr)"))
            self.ended(launcher, job)
            assert sorted(launcher.logs(job).split()) == sorted([word, "error"])
        text = (tmp_path / "ä log").read_text()
        assert "first" in text
        assert text.count("=== job ") == 2
        assert len(launcher.logs(job, max_bytes=4)) == 4

    def test_cancelling_again_and_forcing_ends_all_that_the_job_started(self, launcher, python):
        job = launcher.submit(python(FAMILY))
        child = self.family(launcher, job)
        for _ in range(2):
            launcher.cancel(job)
        assert self.ended(launcher, job).state is JobState.CANCELLED
        launcher.cancel(job)
        launcher.cancel(job, force=True)
        self.until(lambda: not alive(child))
        assert launcher.status(job).state is JobState.CANCELLED

    def test_a_job_can_be_cancelled_before_it_is_known(self, launcher, python):
        job = launcher.submit(python("import time; time.sleep(300)"))
        launcher.cancel(job)
        assert self.ended(launcher, job).state is JobState.CANCELLED

    def test_nobody_waits_for_the_scheduler(self, launcher, python):
        start = time.monotonic()
        launcher.adopt()
        job = launcher.submit(python("import time; time.sleep(300)"))
        launcher.status(job), launcher.cancel(job), launcher.logs(job)
        assert time.monotonic() - start < self.at_once_s

    def test_another_process_goes_on_with_what_lives(self, make, python):
        assert self.adopted_anew(make) == {}
        job = self.elsewhere(make, python(FAMILY, name="a node", fingerprint="f1"))
        launcher = make()
        assert launcher.adopt() == {"a node": Found(job, "f1")}
        child = self.family(launcher, job)
        self.until(lambda: launcher.status(job).state is JobState.RUNNING)
        assert alive(child)
        launcher.cancel(job, force=True)
        assert self.ended(launcher, job).state.final
        self.until(lambda: not alive(child))
        launcher.close()

    def test_what_ended_meanwhile_is_not_taken_over(self, make, python):
        brief = "import time; print('child', 0, flush=True); time.sleep(2); raise SystemExit(4)"
        self.elsewhere(make, python(brief))
        self.until(lambda: self.adopted_anew(make) == {})

    def elsewhere(self, make, spec):
        context = multiprocessing.get_context("spawn")
        ids = context.SimpleQueue()
        process = context.Process(target=submit_elsewhere, args=(make, spec, ids))
        process.start()
        process.join(60)
        assert process.exitcode == 0
        return ids.get()

    def adopted_anew(self, make):
        launcher = make()
        try:
            return launcher.adopt()
        finally:
            launcher.close()
