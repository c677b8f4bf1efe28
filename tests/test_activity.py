"""What is learnt from the files of runs: which go on, and which nodes they use."""

import json
import os

import pytest

from flower_hpc.clock import VirtualClock
from flower_hpc.federation.activity import Activity
from flower_hpc.federation.state import StateDir, write_json
from flower_hpc.telemetry import EventLog
from flower_hpc.telemetry.runlock import RunLock


@pytest.fixture
def state(tmp_path):
    state = StateDir(tmp_path / "lab")
    (state.path / "requests").mkdir(parents=True)
    return state


class Run:
    """A run as ``runs.submit`` and a ServerApp leave it."""

    def __init__(self, state, number, at=0.0, resume=False):
        self.folder = state.path / f"runs/r{number}"
        self.folder.mkdir(parents=True, exist_ok=True)
        request = state.path / f"requests/{number}.json"
        write_json(request, {"run_dir": str(self.folder), "resume": resume})
        os.utime(request, (at, at))
        self.events = EventLog(self.folder)

    def round(self, number, *nodes):
        self.events.write("round_started", round=number)
        for node in nodes:
            self.events.write("sent", node=node, round=number)

    def reply(self, *nodes):
        for node in nodes:
            self.events.write("reply_accepted", node=node)


def test_nodes_count_as_used_while_they_work_and_for_two_rounds(state):
    activity, run = Activity(state, VirtualClock(10.0)), Run(state, 1, at=5.0)
    with RunLock(run.folder):
        activity.look()
        assert (activity.run, activity.blind, activity.used) == (5.0, True, set())
        run.round(1, "a-0", "a-1", "b-0")
        run.reply("a-0", "a-1")
        activity.look()
        assert (activity.blind, activity.used) == (False, {"a-0", "a-1", "b-0"})
        run.round(2, "a-0")
        run.round(3, "a-0")
        activity.look()
        assert activity.used == {"a-0", "b-0"}  # b-0 still has its message of round 1
        run.events.write("node_lost", node="b-0", round=3)
        activity.look()
        assert activity.used == {"a-0"}


def test_a_line_is_read_once_it_is_whole(state):
    activity, run = Activity(state, VirtualClock()), Run(state, 1)
    line = json.dumps({"event": "sent", "node": "a-0"})
    with RunLock(run.folder):
        run.events.path.write_text(line[:10])
        activity.look()
        assert activity.used == set()
        run.events.path.write_text(line + "\n")
        activity.look()
        assert activity.used == {"a-0"}


def test_a_run_counts_from_its_submission_until_its_lock_is_free(state):
    clock = VirtualClock(100.0)
    activity, run = Activity(state, clock), Run(state, 1, at=100.0)
    activity.look()
    assert activity.run == 100.0  # its ServerApp starts
    clock.sleep(30)
    with RunLock(run.folder):
        clock.sleep(1000)
        activity.look()
        assert activity.run == 100.0
    activity.look()
    assert (activity.run, activity.blind) == (None, False)


def test_a_run_that_never_started_or_ended_at_once_is_forgotten(state):
    clock = VirtualClock(100.0)
    activity = Activity(state, clock)
    Run(state, 1, at=100.0)
    ended = Run(state, 2, at=100.0)
    (ended.folder / "result.json").write_text("{}")
    (state.path / "requests/3.json").write_text("no json")
    activity.look()
    assert activity.run == 100.0
    clock.sleep(61)
    activity.look()
    assert activity.run is None


def test_of_a_resumed_run_only_what_it_does_now_counts(state):
    clock = VirtualClock(1000.0)
    activity, run = Activity(state, clock), Run(state, 1, at=0.0)
    activity.look()
    assert activity.run is None
    run.round(1, "a-0")
    write_json(state.path / "requests/2.json", {"run_dir": str(run.folder), "resume": True})
    os.utime(state.path / "requests/2.json", (1000.0, 1000.0))
    with RunLock(run.folder):
        activity.look()
        run.round(2, "a-1")
        activity.look()
    assert (activity.run, activity.used) == (1000.0, {"a-1"})
