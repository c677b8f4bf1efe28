"""A run that was killed goes on from its checkpoint, and ends where it would have ended."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from safetensors.numpy import load_file

from conftest import grid_of, stepping, weights
from flower_hpc.client import Control
from flower_hpc.compression import CompressUpdates
from flower_hpc.errors import ConfigError, RunError
from flower_hpc.records import to_record, to_weights
from flower_hpc.strategies import HybridStrategy, parse
from flower_hpc.telemetry import read_events
from flower_hpc.telemetry.progress import RunView
from flower_hpc.telemetry.runlock import RunLock
from flower_hpc.transport import InProcessGrid, InProcessNode

ROUNDS, TARGETS = 6, [1.0, 2.0, 4.0, 8.0, 16.0]


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


def uneven(partition, received):
    w = received["w"]
    metrics = {"num-examples": partition + 1, "train-loss": 1 / (partition + 1)}
    new = w + (0.3 + 0.01 * partition) * (TARGETS[partition] - w)
    return {"w": new}, metrics | {"num-steps": 3, "train-s": 1.0}


def start(spec, folder, *, kill_after=None, resume=False, grid=None, num_rounds=ROUNDS):
    strategy, seen = parse(spec), []
    strategy.record_as("r", folder, resume=resume)
    object.__setattr__(strategy.settings, "seed", 7)

    def evaluate(number, arrays):
        seen.append(number)
        if number == kill_after:
            raise Killed
        return MetricRecord({"accuracy": float(to_weights(arrays)["w"][0])})

    grid = grid or grid_of(uneven, [1, 2, 3, 4, 5], [CompressUpdates()])
    result = strategy.start(grid, weights(), num_rounds=num_rounds, evaluate_fn=evaluate)
    return result, seen


def events_of(folder, kind):
    return [e for e in read_events(folder / "events.jsonl") if e["event"] == kind]


SPECS = [
    "hybrid()",
    "hybrid(selection=random_selection(0.5), weighting=by_loss)",
    "hybrid(selection=resource_aware(0.5))",
    "hybrid(selection=oort(0.5))",
    "hybrid(selection=random_selection(0.6), inner=flower.FedAdam(fraction_evaluate=0.0))",
    "hybrid(inner=flower.FedAvgM(server_momentum=0.9))",
    "fednova(server_lr=0.5)",
    "fedcompass(q_min=1, q_max=3)",
    "hybrid(cutoff=adaptive_k(2))",
]


@pytest.mark.parametrize("spec", SPECS)
def test_a_resumed_run_ends_with_the_same_bits(tmp_path, spec):
    whole, _ = start(spec, tmp_path / "whole")
    with pytest.raises(Killed):
        start(spec, tmp_path / "cut", kill_after=3)
    resumed, seen = start(spec, tmp_path / "cut", resume=True)
    assert seen == [3, 4, 5, 6]
    if "compass" not in spec and "adaptive_k" not in spec:  # there, messages were in flight
        assert to_weights(resumed.arrays)["w"].tobytes() == to_weights(whole.arrays)["w"].tobytes()
        assert resumed.evaluate_metrics_serverapp == {
            n: m for n, m in whole.evaluate_metrics_serverapp.items() if n != 0
        } | {0: whole.evaluate_metrics_serverapp[0]}
        assert resumed.train_metrics_clientapp == whole.train_metrics_clientapp
    numbers = [e["round"] for e in events_of(tmp_path / "cut", "aggregated")]
    assert numbers == [1, 2, 3, 4, 5, 6]
    rounds = json.loads((tmp_path / "cut" / "result.json").read_text())["rounds"]
    assert [r["round"] for r in rounds] == [1, 2, 3, 4, 5, 6]


def test_scaffold_resumes_with_its_control_variate(tmp_path):
    def scaffolding():
        made = ClientApp(mods=[CompressUpdates()])

        @made.train()
        def train(msg, context):
            control = Control.of(msg, context)
            (record,) = msg.content.array_records.values()
            x = to_weights(record)
            y = {"w": x["w"] - 0.1 * (x["w"] - TARGETS[int(context.node_config["partition-id"])])}
            control.update(x, y, 0.1, 1.0)
            metrics = MetricRecord({"num-examples": 1})
            reply = Message(RecordDict({"arrays": to_record(y), "metrics": metrics}), reply_to=msg)
            control.attach(reply)
            return reply

        return made

    def grid():
        return InProcessGrid(scaffolding(), 5)

    shared = grid()
    whole, _ = start("scaffold()", tmp_path / "whole", grid=grid())
    with pytest.raises(Killed):
        start("scaffold()", tmp_path / "cut", kill_after=3, grid=shared)
    resumed, _ = start("scaffold()", tmp_path / "cut", resume=True, grid=shared)
    np.testing.assert_array_equal(to_weights(resumed.arrays)["w"], to_weights(whole.arrays)["w"])


def test_a_message_in_flight_is_still_taken_where_the_grid_knows_it(tmp_path):
    nodes = [InProcessNode("fast", 1), InProcessNode("slow", 7.5)]
    grid = grid_of(stepping([1.0, 9.0]), nodes, [CompressUpdates()])
    with pytest.raises(Killed):
        start("first_k(1)", tmp_path, kill_after=3, grid=grid)
    start("first_k(1)", tmp_path, resume=True, grid=grid, num_rounds=12)
    (resumed,) = events_of(tmp_path, "run_resumed")
    assert (resumed["round"], resumed["in_flight"], resumed["lost"]) == (3, ["slow"], [])
    late = events_of(tmp_path, "reply_late")
    assert (late[0]["node"], late[0]["asked_round"]) == ("slow", 1)


def test_updates_that_wait_for_the_next_model_are_in_the_checkpoint(tmp_path):
    # node 1's queue is longer than planned: its update of round 1 joins round 2, which another process makes
    def queued(partition, received):
        metrics = {"num-examples": 1, "num-steps": 20, "train-s": 1.0, "queue-s": 500.0 * partition}
        return {"w": received["w"] + partition + 1}, metrics

    spec = "fedqueue(sync_s=100, warm_up=20)"
    whole, _ = start(spec, tmp_path / "whole", grid=grid_of(queued, 2), num_rounds=2)
    with pytest.raises(Killed):
        start(spec, tmp_path / "cut", kill_after=1, grid=grid_of(queued, 2), num_rounds=2)
    resumed, _ = start(spec, tmp_path / "cut", resume=True, grid=grid_of(queued, 2), num_rounds=2)
    assert [e["late"] for e in events_of(tmp_path / "cut", "aggregated")] == [0, 1]
    np.testing.assert_array_equal(to_weights(resumed.arrays)["w"], to_weights(whole.arrays)["w"])


def test_old_checkpoints_are_pruned_and_a_damaged_one_gives_way_to_the_one_before(tmp_path, caplog):
    with pytest.raises(Killed):
        start("hybrid()", tmp_path, kill_after=5)
    files = sorted((tmp_path / "checkpoints").iterdir())
    assert [f.name for f in files] == [f"round-{n:06}.safetensors" for n in (3, 4, 5)]
    data = bytearray(files[-1].read_bytes())
    data[-1] ^= 1
    files[-1].write_bytes(data)
    _, seen = start("hybrid()", tmp_path, resume=True)
    assert seen == [4, 5, 6]
    (resumed,) = events_of(tmp_path, "run_resumed")
    assert "round-000005" in resumed["damaged"][0]
    assert "round-000005" in caplog.text


def damage(folder):
    for path in (folder / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-1])


def delete(folder):
    shutil.rmtree(folder / "checkpoints")


def keep_none(folder):
    delete(folder)
    return "hybrid(checkpoint_every=0)"


@pytest.mark.parametrize(
    ("lose", "words"),
    [
        (damage, "is damaged: round-000003.safetensors: .*round-000002.safetensors: "),
        (delete, "are gone, the last was of round 3"),
        (keep_none, "keeps no checkpoints: checkpoint_every=0"),
    ],
)
def test_a_run_that_has_lost_all_checkpoints_is_not_begun_anew(tmp_path, lose, words):
    with pytest.raises(Killed):
        start("hybrid()", tmp_path, kill_after=3)
    spec, model = lose(tmp_path) or "hybrid()", (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match=words) as caught:
        start(spec, tmp_path, resume=True)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert events_of(tmp_path, "run_failed")[-1]["exit_code"] == 2
    assert (tmp_path / "model.safetensors").read_bytes() == model, "all that is left of it"
    assert json.loads((tmp_path / "result.json").read_text())["rounds"]


def test_a_run_that_never_came_to_a_checkpoint_begins_with_round_1(tmp_path):
    with pytest.raises(Killed):
        start("hybrid(checkpoint_every=4)", tmp_path, kill_after=3)
    _, seen = start("hybrid(checkpoint_every=4)", tmp_path, resume=True)
    assert seen == list(range(ROUNDS + 1))
    view = RunView()
    view.add(events_of(tmp_path, "run_resumed")[0])
    assert view.news == "no checkpoint yet: the run starts from round 1"


def test_an_inner_strategy_keeps_its_state_and_takes_its_new_settings(tmp_path):
    adam = "hybrid(inner=flower.FedAdam(eta={}, fraction_evaluate=0.0))"
    with pytest.raises(Killed):
        start(adam.format(0.1), tmp_path, kill_after=3)
    strategy = parse(adam.format(0.5))
    strategy.record_as("r", tmp_path, resume=True)
    grid = grid_of(uneven, 5, [CompressUpdates()])
    moments = []

    def evaluate(number, arrays):
        moments.append(dict(strategy.settings.inner.m_t))

    strategy.start(grid, weights(), num_rounds=3, evaluate_fn=evaluate)
    assert strategy.settings.inner.eta == 0.5
    assert np.abs(moments[0]["w"]).max() > 0


def test_a_finished_run_can_be_given_more_rounds(tmp_path):
    start("hybrid()", tmp_path, num_rounds=3)
    _, seen = start("hybrid()", tmp_path, resume=True, num_rounds=5)
    assert seen == [3, 4, 5]


def test_nothing_to_resume_is_a_new_run_that_says_so(tmp_path, caplog):
    _, seen = start("hybrid()", tmp_path, resume=True)
    assert seen == list(range(ROUNDS + 1))
    assert "the run starts from round 1" in caplog.text
    assert events_of(tmp_path, "run_resumed")[0]["round"] == 0


def test_checkpoints_of_an_earlier_run_in_the_same_folder_are_not_taken_for_ours(tmp_path):
    start("hybrid()", tmp_path)
    with pytest.raises(Killed):
        start("hybrid()", tmp_path, kill_after=2)
    _, seen = start("hybrid()", tmp_path, resume=True)
    assert seen == [2, 3, 4, 5, 6]


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    start("hybrid()", tmp_path, num_rounds=1)
    strategy = HybridStrategy(run_dir=tmp_path, resume=True)
    with pytest.raises(RunError, match="of another model"):
        strategy.start(grid_of(uneven, 5), weights(dtype=np.float32))


def test_two_processes_do_not_work_on_one_run(tmp_path):
    with RunLock(tmp_path), pytest.raises(RunError, match="another process works on the run"):
        start("hybrid()", tmp_path)


SCRIPT = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_resume import start
folder, mode = Path(sys.argv[1]), sys.argv[2]
import test_resume
if mode == "kill":
    class Kill(BaseException):
        def __init__(self):
            os.kill(os.getpid(), signal.SIGKILL)
    test_resume.Killed = Kill
    start("hybrid(selection=oort(0.5))", folder, kill_after=3)
else:
    result, seen = start("hybrid(selection=oort(0.5))", folder, resume=True)
    print(seen)
"""


def test_a_process_that_is_killed_leaves_a_checkpoint_that_another_goes_on_from(tmp_path):
    whole, _ = start("hybrid(selection=oort(0.5))", tmp_path / "whole")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent)))
    command = [sys.executable, str(script), str(tmp_path / "cut")]
    killed = subprocess.run([*command, "kill"], env=os.environ, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    out = subprocess.run([*command, "resume"], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[3, 4, 5, 6]"
    resumed = load_file(tmp_path / "cut" / "model.safetensors")["w"]
    assert resumed.tobytes() == to_weights(whole.arrays)["w"].tobytes()


def test_checkpoints_can_be_fewer_or_none(tmp_path):
    start("hybrid(checkpoint_every=4)", tmp_path / "a")
    assert [f.name for f in (tmp_path / "a" / "checkpoints").iterdir()] == ["round-000004.safetensors"]
    start("hybrid(checkpoint_every=0)", tmp_path / "b")
    assert not (tmp_path / "b" / "checkpoints").exists()
