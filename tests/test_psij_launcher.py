import ast
import subprocess
import sys
from functools import partial
from io import StringIO
from pathlib import Path

import pytest

from flower_hpc.errors import ConfigError, LaunchError
from flower_hpc.launchers import JobSpec, JobState, Launcher
from flower_hpc.launchers.psij import PsijLauncher
from flower_hpc.launchers.psij_job import (
    EXECUTORS,
    STATES,
    PsijOptions,
    ending,
    one_line,
    read_status,
    request,
)
from launcher_suite import LauncherSuite

psij = pytest.importorskip("psij", reason="needs flower-hpc[psij]")


@pytest.fixture(scope="module", autouse=True)
def closed_pipes():
    """PSI/J leaves the pipe of an ended local job open: a warning would hit whichever test comes next."""
    local = psij.JobExecutor._executors["local"][-1].ecls
    entries = local.submit.__globals__["_ChildProcessEntry"]  # of a module that it keeps to itself
    poll = entries.poll

    def poll_and_close(entry):
        answer = poll(entry)
        if answer[0] is not None:
            entry.process.stdout.close()
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entries, "poll", poll_and_close)
        yield


@pytest.fixture
def options(tmp_path):
    return partial(PsijOptions, folder=tmp_path / "psij-memory")


class TestLocal(LauncherSuite):
    @pytest.fixture
    def make(self, options):
        return partial(PsijLauncher, options(executor="local", poll_s=1))

    def test_it_is_a_launcher_and_leaves_nothing_in_its_folder(self, launcher, python, options):
        anyone: Launcher = launcher
        for code in ("pass", "raise SystemExit(1)"):
            self.ended(anyone, anyone.submit(python(code)))
        folder = options(executor="local").folder
        assert sorted(path.name for path in folder.iterdir()) == ["jobs.json", "psij"]

    def test_setup_comes_first_and_its_words_reach_the_log(self, python, options):
        setup = ("echo set up", "export FROM_SETUP=1 A=setup")
        launcher = PsijLauncher(options(executor="local", setup=setup))
        job = launcher.submit(
            python("import os; print(*map(os.getenv, ('FROM_SETUP', 'A')))", env={"A": "job"})
        )
        assert self.ended(launcher, job).state is JobState.SUCCEEDED
        assert launcher.logs(job) == "set up\n1 job\n"
        launcher.close()

    def test_a_program_that_is_missing_is_a_failure_that_says_so(self, launcher, tmp_path):
        spec = JobSpec(name="x", command=("/no/such/program",), cwd=tmp_path, log=tmp_path / "x.log")
        job = launcher.submit(spec)
        assert self.ended(launcher, job).state is JobState.FAILED
        assert "/no/such/program" in launcher.logs(job)

    def test_what_is_known_only_where_it_starts_is_filled_in(self, launcher, tmp_path):
        (tmp_path / "door").write_text("login1:9092")
        command = ("python", "-c", "import sys; print(sys.argv[1:])", "{door}", "{port:a}", "{port:a}")
        spec = JobSpec(name="n", command=command, cwd=tmp_path, log=tmp_path / "log", door=tmp_path / "door")
        job = launcher.submit(spec)
        assert self.ended(launcher, job).state is JobState.SUCCEEDED, launcher.logs(job)
        door, *ports = ast.literal_eval(launcher.logs(job))
        assert door == "login1:9092"
        assert ports[0].isdigit()
        assert len(set(ports)) == 1

    def test_what_no_shell_takes_is_refused(self, launcher, python):
        with pytest.raises(LaunchError, match="no shell takes a variable called 'a-b'"):
            launcher.submit(python("pass", env={"a-b": "c"}))


def sbatch(folder, monkeypatch, text):
    """A stand-in that says ``text`` and fails; without one, nothing of that name can be started."""
    folder.mkdir()
    if text:
        (folder / "sbatch").write_text(f"#!/bin/sh\necho '{text}' >&2\nexit 1\n")
        (folder / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.parametrize(
    ("text", "words", "refused"),
    [
        ("sbatch: error: bad\nsbatch: error: Invalid partition", "bad; Invalid partition", True),
        ("sbatch: error: Unable to contact slurm controller", "Unable to contact slurm controller", False),
        ("", "No such file or directory: 'sbatch'", True),
    ],
)
def test_what_the_scheduler_refuses_is_told_in_its_words(
    tmp_path, monkeypatch, options, text, words, refused
):
    sbatch(tmp_path / "bin", monkeypatch, text)
    launcher = PsijLauncher(options(executor="slurm"))
    job = launcher.submit(JobSpec(name="n", command=("x",), cwd=tmp_path, log=tmp_path / "n.log"))
    launcher.close()
    status = launcher.status(job)
    assert (status.state, status.refused) == (JobState.FAILED, refused)
    assert words in status.reason
    assert "\n" not in status.reason
    assert launcher.adopt() == {}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (
            {"executor": "condor"},
            "must be one of local, slurm, pbs, pbs_classic, lsf, flux, got 'condor'",
        ),
        ({"folder": Path("here")}, "folder must be an absolute path, got 'here'"),
        ({"folder": Path("/a b")}, "folder is '/a b'"),
        ({"queue": "a\n#PBS -A x"}, "queue is "),
        ({"minutes": 0}, "minutes must be at least 1, got 0"),
        ({"mem_gb": 0.0}, "mem_gb must be above 0, got 0.0"),
        ({"gpus": 1}, "no GPUs"),
        ({"attributes": {"slurm.qos": "high"}}, "attributes must be pbs.NAME, got 'slurm.qos'"),
        ({"executor": "flux", "attributes": {"x": "y"}}, "attributes must be none for flux, got 'x'"),
        ({"executor": "lsf", "gpus": 1, "cpus": 2}, "GPUs by CPU"),
    ],
)
def test_what_cannot_work_is_refused(options, wrong, words):
    with pytest.raises(ConfigError) as error:
        options(**({"executor": "pbs"} | wrong))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_names_and_states_are_those_of_psij():
    assert set(EXECUTORS) <= psij.JobExecutor.get_executor_names()
    assert list(STATES) == [str(state) for state in psij.JobState]


@pytest.mark.parametrize(
    ("state", "message", "code", "asked", "expected"),
    [
        ("NEW", None, None, False, JobState.PENDING),
        ("QUEUED", None, None, True, JobState.PENDING),
        ("ACTIVE", None, None, False, JobState.RUNNING),
        ("ACTIVE", None, 0, False, JobState.SUCCEEDED),
        ("ACTIVE", None, 1, False, JobState.FAILED),
        ("COMPLETED", None, 0, False, JobState.SUCCEEDED),
        ("COMPLETED", None, None, False, JobState.FAILED),
        ("COMPLETED", None, None, True, JobState.CANCELLED),
        ("FAILED", "The job exhausted its time limit.", None, False, JobState.TIMEOUT),
        ("FAILED", "A node is down.", None, False, JobState.FAILED),
        ("CANCELED", None, None, False, JobState.CANCELLED),
    ],
)
def test_what_psij_says_in_our_words(state, message, code, asked, expected):
    told = psij.JobStatus(psij.JobState[state], message=message)
    assert read_status(told, code, asked).state is expected


@pytest.mark.parametrize(
    ("executor", "lines"),
    [
        (
            "pbs",
            ["-l select=1:ncpus=4:mpiprocs=4:mem=2147483648", "-l walltime=1:30:0", "-A fl", '-N "a_node"'],
        ),
        ("pbs_classic", ["-l nodes=1:ppn=4:mem=2147483648", "-l walltime=1:30:0", "-q long", '-N "a_node"']),
        ("lsf", ["-n 4", "-W 1:30", '-q "long"', '-P "fl"', '-J "a_node"', "-M 2097152KB"]),
        ("slurm", ["--cpus-per-task=4", "--time=1:30:0", '--partition="long"', '--job-name="a_node"']),
    ],
)
def test_what_psij_makes_of_a_request(executor, lines, options, tmp_path):
    """The script that it would submit; none of these schedulers is asked."""
    what = options(executor=executor, queue="long", account="fl", minutes=90, cpus=4, mem_gb=2)
    native = psij.Job(request("a node", tmp_path / "a.sh", what))
    maker = psij.JobExecutor.get_instance(executor, config=psij.JobExecutorConfig(work_directory=tmp_path))
    text = StringIO()
    maker.generate_submit_script(native, maker._create_script_context(native), text)
    assert [line for line in lines if line not in text.getvalue()] == []
    assert f"/bin/bash {tmp_path}/a.sh" in text.getvalue()


def test_words_are_one_line():
    assert (ending(143), ending(3), ending(255)) == ("killed by SIGTERM", "exit code 3", "exit code 255")
    assert one_line("qsub: error: no\n\nqsub: error: no\nwhy\n") == "no; why"


def test_importing_the_launchers_does_not_import_psij_and_using_it_leaves_signals_alone(tmp_path):
    code = f"""
import signal, sys, time
from pathlib import Path
from flower_hpc.launchers import JobSpec
from flower_hpc.launchers.psij import PsijLauncher, PsijOptions
assert "psij" not in sys.modules
folder = Path({str(tmp_path)!r})
launcher = PsijLauncher(PsijOptions(executor="local", folder=folder))
job = launcher.submit(JobSpec(name="n", command=("true",), cwd=folder, log=folder / "log"))
while not launcher.status(job).state.final:
    time.sleep(0.05)
launcher.close()
assert "psij" in sys.modules
print(launcher.status(job).state, signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (out.stdout.strip(), out.stderr) == ("succeeded True", "")
