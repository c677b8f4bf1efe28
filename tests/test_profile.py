"""Profiles: measured seldom, told when asked for, and whole in spite of what a machine does not tell."""

import sys
import time
from types import SimpleNamespace

import pytest
from flwr.app import ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import fixedclipping_mod

from conftest import make_app, stepping, weights
from flower_hpc import protocol
from flower_hpc.client import KeepBudget, ProfiledApp, ReportProfile, machine, profile
from flower_hpc.clock import VirtualClock
from flower_hpc.compression import CompressUpdates
from flower_hpc.errors import ConfigError
from flower_hpc.records import to_record, to_weights
from flower_hpc.transport import InProcessGrid, InProcessNode


@pytest.fixture(autouse=True)
def _identity():
    InProcessGrid(make_app(stepping([0])), 1)  # says who we are, so that messages can be made here


def message(config=None, kind="train"):
    content = {"config": ConfigRecord(config or {})}
    if kind == "train":
        content = {"arrays": weights()} | content
    return Message(RecordDict(content), 1, kind)


def context(**node_config):
    return Context(1, 1, {"partition-id": 0, "name": "a-1"} | node_config, RecordDict(), {})


def replying(app_class=ProfiledApp, mods=()):
    """A ClientApp that adds 1 to each weight."""
    app = app_class(mods=list(mods))

    @app.train()
    def train(msg, _):
        arrays = {k: x + 1 for k, x in to_weights(msg.content["arrays"]).items()}
        content = {"arrays": to_record(arrays), "metrics": MetricRecord({"num-examples": 1})}
        return Message(RecordDict(content), reply_to=msg)

    return app


def test_a_profile_holds_plain_facts_labels_and_times():
    app = replying(mods=[ReportProfile(labels=("site", "rack"), clock=VirtualClock(50))])
    reply = app(message({protocol.WANT_PROFILE: True}), context(site="north"))
    profile = reply.content[protocol.PROFILE]
    assert profile["cores"] >= 1
    assert profile["memory-gb"] > profile["free-memory-gb"] > 0
    assert profile["gflops"] > 0
    assert isinstance(profile["gpu-model"], str)
    assert profile["label.site"] == "north"
    assert "label.rack" not in profile
    assert profile[protocol.RECEIVED_WALL] == profile[protocol.REPLIED_WALL] == 50
    assert list(reply.content.array_records) == ["arrays"]


def test_only_what_is_asked_for_is_told():
    app, state = replying(), context()
    assert protocol.PROFILE not in app(message(), state).content
    times = app(message({protocol.WANT_PROFILE: False}), state).content[protocol.PROFILE]
    assert set(times) == {protocol.RECEIVED_WALL, protocol.REPLIED_WALL}
    assert time.time() - 60 < times[protocol.RECEIVED_WALL] <= times[protocol.REPLIED_WALL] <= time.time()
    assert protocol.PROFILE not in state.state


def test_a_profile_is_measured_anew_after_every_so_many_rounds(monkeypatch):
    app, kept = replying(mods=[ReportProfile(every=2)]), context()
    measured = []
    monkeypatch.setattr(profile, "measure", lambda: measured.append(machine.measure()) or measured[-1])

    def told(number):
        config = {protocol.WANT_PROFILE: True, protocol.SERVER_ROUND: number}
        return app(message(config), kept).content[protocol.PROFILE]

    assert told(1)["free-memory-gb"] == measured[0]["free-memory-gb"]
    told(2)
    assert len(measured) == 1
    told(3)
    assert len(measured) == 2


def test_a_process_measures_its_speed_once():
    # a rank of an MPI job hosts many nodes, and each measurement takes its cores
    assert machine.gflops() == machine.measure()["gflops"] == machine.gflops()


def test_an_error_reply_passes_untouched():
    error = Message(Error(1, "no"), reply_to=message())
    asked = message({protocol.WANT_PROFILE: True})
    assert ReportProfile()(asked, context(), lambda *_: error) is error
    assert not error.has_content()


@pytest.mark.parametrize("mods", [[], [CompressUpdates(), fixedclipping_mod, KeepBudget()]])
def test_a_profiled_app_answers_the_query_with_the_profile_alone(mods):
    reply = replying(mods=mods)(message(kind=protocol.PROFILE_QUERY), context(site="north"))
    assert list(reply.content) == [protocol.PROFILE]
    profile = reply.content[protocol.PROFILE]
    assert {"cores", "gflops", "label.site", protocol.RECEIVED_WALL} <= set(profile)


def test_a_query_and_a_training_share_one_measurement():
    app, kept = replying(), context()
    asked = app(message(kind=protocol.PROFILE_QUERY), kept)
    trained = app(message({protocol.WANT_PROFILE: True, protocol.SERVER_ROUND: 1}), kept)
    assert len({r.content[protocol.PROFILE]["gflops"] for r in (asked, trained)}) == 1


def test_updates_profiles_and_names_go_together():
    app = replying(mods=[CompressUpdates(), KeepBudget()])
    config = {protocol.REPLY_AS: protocol.UPDATE, protocol.VERSION: 3, protocol.WANT_PROFILE: True}
    reply = app(message(config), context())
    assert protocol.mark_of(reply) == protocol.Mark("update", 3, "a-1", decodes=True)
    assert to_weights(reply.content["arrays"])["w"].tolist() == [1, 1, 1]
    assert reply.content[protocol.PROFILE]["cores"] >= 1
    answer = app(message({protocol.REPLY_AS: protocol.UPDATE}, protocol.PROFILE_QUERY), context())
    assert protocol.mark_of(answer).name == "a-1"


def test_the_mod_of_a_profiled_app_comes_after_a_leading_compress_updates():
    seen = []

    class Spy(ReportProfile):
        def __call__(self, msg, ctx, call_next):
            reply = super().__call__(msg, ctx, call_next)
            seen.append(protocol.MARK in reply.content)
            return reply

    app = replying(mods=[CompressUpdates(), Spy()])
    reply = app(message({protocol.REPLY_AS: protocol.UPDATE, protocol.WANT_PROFILE: True}), context())
    assert seen == [False]  # one profile mod, not two, and within CompressUpdates
    assert list(reply.content.config_records) == [protocol.PROFILE, protocol.MARK]


def test_an_app_without_the_query_refuses_it_and_a_federation_of_both_goes_on():
    nodes = [InProcessNode("old", app=replying(ClientApp)), InProcessNode("new")]
    grid = InProcessGrid(replying(), nodes)
    asked = [Message(RecordDict(), node, protocol.PROFILE_QUERY) for node in (1, 2)]
    old, new = sorted(grid.send_and_receive(asked), key=lambda r: r.metadata.src_node_id)
    assert sorted(r.has_error() for r in (old, new)) == [False, True]


class _NvmlError(Exception):
    pass


def nvml(monkeypatch, fails=None, visible=None):
    """An NVML library with two GPUs, of which one call may fail."""

    def call(name, result):
        def answer(*args):
            if name == fails:
                raise _NvmlError
            return result(*args)

        return answer

    def gpu(index):
        if index not in (0, 1):
            raise _NvmlError
        return index

    functions = {
        "Init": lambda: None,
        "Shutdown": lambda: None,
        "DeviceGetCount": lambda: 2,
        "DeviceGetHandleByIndex": gpu,
        "DeviceGetHandleByUUID": lambda uuid: gpu({"GPU-b": 1}.get(uuid)),
        "DeviceGetMemoryInfo": lambda h: SimpleNamespace(total=[24e9, 80e9][h]),
        "DeviceGetName": lambda h: ["small", "large"][h],
    }
    library = {f"nvml{k}": call(k, f) for k, f in functions.items()}
    errors = dict.fromkeys(("NVMLError_LibraryNotFound", "NVMLError_DriverNotLoaded"), FileNotFoundError)
    fake = SimpleNamespace(**library, **errors, NVMLError=_NvmlError)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    return machine.gpus()


@pytest.mark.parametrize(
    ("visible", "facts"),
    [
        (None, ("large", 2, 80.0)),
        ("0", ("small", 1, 24.0)),
        ("1,0", ("large", 2, 80.0)),
        ("GPU-b", ("large", 1, 80.0)),
        ("0,-1,1", ("small", 1, 24.0)),
        ("", ("", 0, 0.0)),
    ],
)
def test_the_gpus_are_those_that_this_process_may_use(visible, facts, monkeypatch):
    found = nvml(monkeypatch, visible=visible)
    assert (found["gpu-model"], found["gpus"], found["gpu-mem-gb"]) == facts


@pytest.mark.parametrize("fails", ["Init", "DeviceGetCount", "DeviceGetMemoryInfo", "DeviceGetName"])
def test_what_nvml_does_not_tell_is_left_out(fails, monkeypatch):
    assert nvml(monkeypatch, fails) == {}
    assert "cores" in machine.measure()


@pytest.mark.parametrize("library", ["psutil", "pynvml"])
def test_a_missing_library_leaves_its_facts_out(library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    found = {**machine.memory(), **machine.gpus()}
    assert ("memory-gb" in found) == (library != "psutil")
    assert ("gpus" in found) == (library != "pynvml")


def test_profile_settings_that_cannot_work_are_refused():
    with pytest.raises(ConfigError, match="every must be a whole number >= 1, got 0"):
        ReportProfile(every=0)
    with pytest.raises(ConfigError, match="labels must be a tuple of names, got 'site'"):
        ReportProfile(labels="site")
