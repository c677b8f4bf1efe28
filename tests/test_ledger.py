"""What the server knows of its nodes: from replies, from their profiles, from their schedulers."""

import json

import pytest

from conftest import grid_of, stepping, weights
from flower_hpc.client import ProfiledApp
from flower_hpc.compression import CompressUpdates
from flower_hpc.strategies import Deadline, FirstK, HybridStrategy, ResourceAware
from flower_hpc.strategies.history import NodeHistory
from flower_hpc.strategies.ledger import Ledger
from flower_hpc.strategies.loop.run import Run
from flower_hpc.telemetry import read_events
from flower_hpc.transport import InProcessGrid, InProcessNode


@pytest.fixture
def seen(monkeypatch):
    """The ledgers of the runs of a test."""
    ledgers, init = [], Run.__init__

    def remember(run, *args, **options):
        init(run, *args, **options)
        ledgers.append(run.state.ledger)

    monkeypatch.setattr(Run, "__init__", remember)
    return ledgers


def of(folder, event, **fields):
    events = read_events(folder / "events.jsonl")
    return [e for e in events if e["event"] == event and fields.items() <= e.items()]


def run(grid, folder, rounds=3, **options):
    options = {"fraction_evaluate": 0.0, "run_dir": folder, "seed": 0} | options
    return HybridStrategy(**options).start(grid, weights(), num_rounds=rounds)


def test_a_dead_node_is_charged_for_its_own_failure_and_nobody_else(tmp_path, seen):
    # Flower's error reply names node 1 as its sender, whoever has died
    nodes = [InProcessNode("one", 1), InProcessNode("two", 9, offline=[(5, 8)]), InProcessNode("three", 1)]
    run(grid_of(stepping([1, 2, 3]), nodes, [CompressUpdates()]), tmp_path, rounds=2, cutoff=Deadline(20))
    (ledger,) = seen
    assert {name: ledger.of(name).failed for name in ("one", "two", "three")} == {
        "one": 0,
        "two": 1,
        "three": 0,
    }
    assert ledger.of("two").reliability < ledger.of("one").reliability


def test_outcomes_are_forgotten_so_that_a_node_can_recover():
    ledger = Ledger()
    for number in range(10):
        ledger.failed("n", number)
    low = ledger.of("n").reliability
    for number in range(10):
        ledger.completed("n", number, 1.0, late=False)
    recovered = ledger.of("n").reliability
    steady = Ledger()
    for number in range(10):
        steady.completed("n", number, 1.0, late=False)
    assert low < 0.3
    assert recovered > 0.65
    assert recovered < steady.of("n").reliability
    before = ledger.of("n").bad
    for _ in range(100):
        ledger.new_round()
    assert ledger.of("n").bad < 0.2 * before


def test_a_prediction_comes_from_history_else_from_measured_speed_else_from_the_others():
    ledger = Ledger()
    assert ledger.predict_s("new") is None
    for name, seconds, gflops in (("a", 10.0, 100.0), ("b", 20.0, 50.0)):
        ledger.answered(name, seconds)
        ledger.learn_profile(name, {"gflops": gflops})
    assert ledger.predict_s("a") == 10
    assert ledger.predict_s("new") == 15
    ledger.learn_profile("new", {"gflops": 200.0, "round-trip-s": 1.0})
    assert ledger.predict_s("new") == pytest.approx(5)  # 1000 GFLOP in all


def test_a_full_prediction_does_not_fall_where_a_node_was_given_less():
    past = NodeHistory()
    past.took(25.0)
    past.learn({"num-steps": 20, "train-s": 20.0}, 25.0, limited=False)
    past.took(15.0)
    past.learn({"num-steps": 10, "train-s": 10.0}, 15.0, limited=True)
    assert past.full_s == pytest.approx(25.0)


def test_bandwidth_is_what_bytes_take_longer_than_nothing_whatever_the_clocks_say():
    ledger, ahead = Ledger(), 3600.0
    ledger.learn_link("n", "down_mb_s", ahead + 2.0, 0)
    ledger.learn_link("n", "down_mb_s", ahead + 2.1, 1_000_000)
    assert "down_mb_s" not in ledger.of("n").profile  # faster than can be told
    ledger.learn_link("n", "down_mb_s", ahead + 12.0, 40_000_000)
    assert ledger.of("n").profile["down_mb_s"] == pytest.approx(4.0)


def test_what_a_node_tells_of_itself_is_kept_within_bounds():
    ledger = Ledger()
    ledger.learn_profile("n", {f"label.{i}": "x" for i in range(1000)} | {"cores": 4})
    ledger.learn_profile("n", {"gpu-model": "H" * 1000, "list": [1], "free-memory-gb": 3.0})
    assert len(ledger.of("n").profile) <= 65
    assert "gpu_model" not in ledger.of("n").profile
    assert ledger.of("n").profile["free_memory_gb"] == 3.0
    lies = {"num-steps": float("nan"), "train-s": -1, "num-examples": "many", "train-loss": True}
    ledger.of("n").learn(lies, 5.0, limited=False)
    assert ledger.of("n").full_s is None


def test_a_ledger_survives_its_checkpoint():
    ledger = Ledger()
    ledger.answered("n", 3.0)
    ledger.completed("n", 2, 0.5, late=True)
    ledger.learn_profile("n", {"cores": 8, "label.site": "hpc"})
    ledger.learn_round([1.0, 3.0], 0.5)
    other = Ledger()
    other.restore(json.loads(json.dumps(ledger.to_json())))
    assert other.to_json() == ledger.to_json()
    assert other.facts("n")["site"] == "hpc"


def profiled(nodes):
    app = ProfiledApp(mods=[CompressUpdates()])

    @app.train()
    def train(msg, context):
        from flwr.app import Message, MetricRecord, RecordDict

        (record,) = msg.content.array_records.values()
        content = {"arrays": record, "metrics": MetricRecord({"num-examples": 1})}
        return Message(RecordDict(content), reply_to=msg)

    return InProcessGrid(app, nodes)


def test_profiles_reach_the_ledger_before_the_first_round_and_cost_no_failure(tmp_path, seen):
    nodes = [InProcessNode(f"n-{i}", node_config={"site": "hpc"}) for i in range(3)]
    run(profiled(nodes), tmp_path, selection=ResourceAware(1.0))
    (ledger,) = seen
    for name in ("n-0", "n-1", "n-2"):
        facts = ledger.facts(name)
        assert facts["cores"] >= 1
        assert facts["gflops"] > 0
        assert (facts["site"], ledger.of(name).failed) == ("hpc", 0)
    assert len(of(tmp_path, "sent", kind="query.flower_hpc_profile")) == 3


def test_a_node_without_the_query_takes_part_and_is_not_charged(tmp_path, seen):
    run(grid_of(stepping([1, 2]), 2), tmp_path, selection=ResourceAware(1.0))
    assert [seen[0].of(f"node-{i}").failed for i in range(2)] == [0, 0]
    assert len(of(tmp_path, "reply_accepted")) == 6
    assert not of(tmp_path, "reply_failed")


class Scheduler:
    """Appends to facts.jsonl as a controller does, at given virtual times."""

    def __init__(self, path, facts):
        self.path, self.facts = path, list(facts)

    def __call__(self, now):
        while self.facts and self.facts[0][0] <= now:
            time, name, state, *more = self.facts.pop(0)
            fact = {"name": name, "state": state, "reason": "lab", "time": time} | dict(*more)
            with self.path.open("a") as file:
                file.write(json.dumps(fact) + "\n")


class Told(InProcessGrid):
    """A grid that still lists a preempted node online, as Flower does for a minute."""

    def get_nodes(self):
        self.scheduler(self.clock.now())
        return super().get_nodes()


def test_a_round_does_not_wait_for_a_node_that_its_scheduler_says_is_gone(tmp_path, seen):
    nodes = [InProcessNode("n-0", 4), InProcessNode("n-1", 60)]
    grid = grid_of(stepping([1, 2]), nodes)
    grid.__class__ = Told
    path = tmp_path / "facts.jsonl"
    grid.scheduler = Scheduler(path, [(2, "n-1", "preempted"), (30, "n-1", "running")])
    run(grid, tmp_path, rounds=12, facts=path)
    cuts = [e["time"] for e in of(tmp_path, "cut")]
    assert cuts[0] == pytest.approx(4, abs=0.3)
    (lost,) = of(tmp_path, "node_lost")
    assert (lost["node"], lost["reason"]) == ("n-1", "preempted: lab")
    asked = [e["time"] for e in of(tmp_path, "sent", node="n-1")]
    assert asked[0] == 0
    assert asked[1] >= 30  # and again once it runs
    assert seen[0].of("n-1").failed == 1


def test_a_job_that_waits_is_told_with_its_expected_start(tmp_path, seen):
    grid = grid_of(stepping([1, 2]), [InProcessNode("n-0", 4), InProcessNode("n-1", 4)])
    grid.__class__ = Told
    path = tmp_path / "facts.jsonl"
    path.write_text(json.dumps({"name": "n-1", "state": "pending", "reason": "old", "time": -1}) + "\n")
    grid.scheduler = Scheduler(path, [(2, "n-1", "pending", {"starts-at": 900}), (9, "n-1", "running")])
    run(grid, tmp_path, rounds=2, facts=path)
    (queued,) = of(tmp_path, "node_queued")
    assert (queued["node"], queued["reason"], queued["starts_at"]) == ("n-1", "lab", 900)
    assert seen[0].of("n-1").starts_at == 900


def test_a_node_that_leaves_is_awaited_and_gets_nothing_new_until_it_runs_again(tmp_path, seen):
    grid = grid_of(stepping([1, 2]), [InProcessNode("n-0", 4), InProcessNode("n-1", 4)])
    grid.__class__ = Told
    path = tmp_path / "facts.jsonl"
    path.write_text(json.dumps({"name": "n-0", "state": "leaving", "reason": "old", "time": -1}) + "\n")
    grid.scheduler = Scheduler(path, [(2, "n-1", "leaving"), (14, "n-1", "running")])
    run(grid, tmp_path, rounds=6, facts=path)
    assert [e["node"] for e in of(tmp_path, "node_leaving")] == ["n-1"]
    assert not of(tmp_path, "node_lost")
    asked = [e["time"] for e in of(tmp_path, "sent", node="n-1")]
    assert asked[0] == 0
    assert of(tmp_path, "reply_accepted", node="n-1")[0]["time"] == pytest.approx(4, abs=0.3)
    assert asked[1] >= 14
    assert len(of(tmp_path, "sent", node="n-0")) == 6
    assert not seen[0].of("n-1").leaves


def test_a_resumed_run_does_not_read_old_facts_again(tmp_path):
    path = tmp_path / "facts.jsonl"
    path.write_text(json.dumps({"name": "n-1", "state": "failed", "reason": "", "time": 0}) + "\n")
    grid = grid_of(stepping([1, 2]), [InProcessNode("n-0", 1), InProcessNode("n-1", 1)])
    run(grid, tmp_path, rounds=1, facts=path)
    assert not of(tmp_path, "sent", node="n-1")
    again = grid_of(stepping([1, 2]), [InProcessNode("n-0", 1), InProcessNode("n-1", 1)])
    run(again, tmp_path, rounds=2, facts=path, resume=True, cutoff=FirstK(1))
    assert len(of(tmp_path, "sent", node="n-0")) == 2
