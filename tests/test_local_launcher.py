"""Processes of this machine, and how one is kept alive: by a fake launcher and a clock that costs nothing."""

import os
import sys
import time
from dataclasses import dataclass, field

import pytest

from flower_hpc.clock import VirtualClock
from flower_hpc.errors import ConfigError, LaunchError
from flower_hpc.federation.keeper import HELD_AT_MOST_S, Keeper
from flower_hpc.federation.status import NodeState
from flower_hpc.launchers import JobSpec, JobState, JobStatus, Launcher, LocalLauncher
from flower_hpc.launchers.ports import free_port, join, why_not
from flower_hpc.launchers.supernode_log import last_line

FAMILY = """
import os, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def python(tmp_path):
    def spec(code, **options):
        command = (sys.executable, "-c", code)
        folder = tmp_path / "a folder"
        return JobSpec(name="job", command=command, cwd=folder, log=tmp_path / "job.log", **options)

    return spec


def until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ended(launcher, job):
    until(lambda: launcher.status(job).state.final)
    return launcher.status(job).state


def test_it_is_a_launcher_and_rendering_starts_nothing(python, tmp_path):
    launcher: Launcher = LocalLauncher()
    words = launcher.render(python("print('it works')", env={"A": "b c"}))
    assert words.startswith(f"cd '{tmp_path}/a folder' && A='b c' ")
    assert not (tmp_path / "job.log").exists()


def test_exit_codes_become_states(python):
    launcher = LocalLauncher()
    assert ended(launcher, launcher.submit(python("pass"))) is JobState.SUCCEEDED
    assert ended(launcher, launcher.submit(python("raise SystemExit(3)"))) is JobState.FAILED
    assert launcher.status("1").state is JobState.UNKNOWN
    launcher.cancel("1")
    assert launcher.logs("1") == ""


def test_output_is_appended_and_each_job_sees_its_own(python, tmp_path):
    launcher = LocalLauncher()
    code = "import os; print(os.environ['WHO'], os.getcwd())"
    jobs = [launcher.submit(python(code, env={"WHO": who})) for who in ("first",)]
    ended(launcher, jobs[0])
    second = launcher.submit(python(code, env={"WHO": "second"}))
    ended(launcher, second)
    assert launcher.logs(second).strip() == f"second {tmp_path}/a folder"
    text = (tmp_path / "job.log").read_text()
    assert text.count("=== job started") == 2
    assert "first" in text


def test_asking_signals_the_leader_once(python):
    launcher = LocalLauncher()
    code = """
import signal, time
count = 0
def note(*_):
    global count
    count += 1
signal.signal(signal.SIGINT, note)
print("ready", flush=True)
end = time.monotonic() + 1
while time.monotonic() < end:
    time.sleep(0.05)
print("asked", count)
"""
    job = launcher.submit(python(code))
    until(lambda: "ready" in launcher.logs(job))
    for _ in range(5):
        launcher.cancel(job)
        time.sleep(0.05)
    assert ended(launcher, job) is JobState.CANCELLED
    assert "asked 1" in launcher.logs(job)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_force_ends_what_the_job_started_even_after_the_job(python):
    launcher = LocalLauncher()
    for kill_leader_first in (False, True):
        job = launcher.submit(python(FAMILY))
        until(lambda job=job: launcher.logs(job).strip())
        child = int(launcher.logs(job))
        if kill_leader_first:
            os.kill(int(job), 9)
            ended(launcher, job)
            assert alive(child)
        launcher.cancel(job, force=True)
        ended(launcher, job)
        until(lambda child=child: not alive(child))
        launcher.cancel(job, force=True)  # once more harms nobody


def test_what_cannot_start_is_a_launch_error(tmp_path):
    spec = JobSpec(name="x", command=("/no/such/program",), cwd=tmp_path, log=tmp_path / "x.log")
    with pytest.raises(LaunchError, match="x cannot be started"):
        LocalLauncher().submit(spec)
    with pytest.raises(ConfigError, match="has no command"):
        JobSpec(name="x", command=(), cwd=tmp_path, log=tmp_path / "x.log")


def test_ports():
    import socket

    port = free_port("127.0.0.1")
    assert why_not("127.0.0.1", port) is None
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        assert why_not("127.0.0.1", server.getsockname()[1]) == "taken"
    assert join("::1", 1) == "[::1]:1"


@dataclass
class FakeLauncher:
    """Jobs that end when the test says so."""

    words: str = ""
    states: dict[str, JobState] = field(default_factory=dict)
    cancelled: list[tuple[str, bool]] = field(default_factory=list)

    def render(self, spec):
        return spec.name

    def submit(self, spec):
        job = str(len(self.states))
        self.states[job] = JobState.RUNNING
        return job

    def status(self, job_id):
        return JobStatus(self.states[job_id])

    def cancel(self, job_id, *, force=False):
        self.cancelled.append((job_id, force))

    def logs(self, job_id, max_bytes=65536):
        return self.words

    def end(self):
        self.states[str(len(self.states) - 1)] = JobState.FAILED


@pytest.fixture
def kept(tmp_path):
    launcher, clock, online = FakeLauncher(), VirtualClock(), set()
    spec = JobSpec(name="n", command=("x",), cwd=tmp_path, log=tmp_path / "n.log")
    keeper = Keeper("n", launcher, lambda: spec, lambda job: job in online, clock)
    return keeper, launcher, clock, online


def delay_to_next_start(keeper, launcher, clock):
    launcher.end()
    keeper.tick()
    start, before = clock.now(), len(launcher.states)
    while len(launcher.states) == before:
        clock.sleep(0.25)
        keeper.tick()
    return clock.now() - start


def test_backoff_grows_and_starts_again_after_a_stable_minute(kept):
    keeper, launcher, clock, online = kept
    keeper.start()
    assert [delay_to_next_start(*kept[:3]) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    online.add("8")
    keeper.tick()
    assert keeper.state is NodeState.ONLINE
    clock.sleep(61)
    keeper.tick()
    assert delay_to_next_start(keeper, launcher, clock) == 1
    assert keeper.restarts == 9


def test_three_early_ends_are_a_failure_that_is_still_tried(kept):
    keeper, launcher, clock, online = kept
    keeper.start()
    for _ in range(2):
        delay_to_next_start(keeper, launcher, clock)
    launcher.end()
    keeper.tick()
    assert keeper.state is NodeState.FAILED
    clock.sleep(60)
    keeper.tick()
    online.add("3")
    keeper.tick()
    assert keeper.state is NodeState.ONLINE


def test_a_key_that_is_still_held_is_tried_every_five_seconds_but_not_for_ever(kept):
    keeper, launcher, clock, _ = kept
    keeper.start()
    launcher.words = "Exit Code: 305\n[code: 2004] Failed to activate SuperNode."
    assert [delay_to_next_start(*kept[:3]) for _ in range(12)] == [5] * 12
    assert keeper.state is NodeState.STARTING
    clock.sleep(HELD_AT_MOST_S)
    for _ in range(2):
        delay_to_next_start(keeper, launcher, clock)
    launcher.end()
    keeper.tick()
    assert keeper.state is NodeState.FAILED


def test_stopping_asks_then_forces(kept):
    keeper, launcher, clock, _ = kept
    keeper.start()
    keeper.stop()
    keeper.stop()
    assert launcher.cancelled == [("0", False)]
    clock.sleep(6)
    keeper.tick()
    assert launcher.cancelled == [("0", False), ("0", True)]
    launcher.end()
    keeper.tick()
    assert keeper.stopped
    assert keeper.restarts == 0


def test_a_restart_waits_for_the_end_of_the_old_one(kept):
    keeper, launcher, _, _ = kept
    keeper.start()
    keeper.restart()
    keeper.tick()
    assert len(launcher.states) == 1
    launcher.end()
    keeper.tick()
    assert (len(launcher.states), keeper.state) == (2, NodeState.STARTING)


def test_last_words_are_the_reason():
    flower = "\x1b[91mERROR \x1b[0m: Exit Code: 305\nFailed to initialize.\n[code: 2004] No.\nINFO: bye\n"
    assert last_line(flower) == "ERROR : Exit Code: 305 Failed to initialize. [code: 2004] No."
    assert last_line("a\nOSError: b\nc") == "OSError: b"
    assert last_line("") == "it wrote nothing"
