"""What a round does with slow, late, failing and lying nodes; virtual time, real ClientApps."""

import json
import re

import httpx
import numpy as np
import pytest
from flwr.app import ConfigRecord, MetricRecord
from flwr.clientapp.mod import fixedclipping_mod
from flwr.serverapp import strategy as flower

from conftest import grid_of, make_app, stepping, weights
from flower_hpc.client import KeepBudget
from flower_hpc.clock import WALL
from flower_hpc.compression import CompressUpdates
from flower_hpc.errors import ConfigError, RunError
from flower_hpc.records import to_weights
from flower_hpc.strategies import Deadline, Discard, FirstK, HybridStrategy, Polynomial, RandomSelection
from flower_hpc.telemetry import read_events
from flower_hpc.transport import InProcessGrid, InProcessNode
from processes import named


def run(grid, tmp_path, rounds=1, start=None, timeout=3600.0, **options):
    strategy = HybridStrategy(**{"fraction_evaluate": 0.0, "run_dir": tmp_path} | options)
    result = strategy.start(grid, start or weights(), num_rounds=rounds, timeout=timeout)
    events = list(read_events(tmp_path / "events.jsonl"))
    return to_weights(result.arrays)["w"], events


def of(events, kind, **fields):
    return [e for e in events if e["event"] == kind and fields.items() <= e.items()]


def nodes_of(events, kind, **fields):
    return sorted(e["node"] for e in of(events, kind, **fields))


BOTH_FORMS = pytest.mark.parametrize("mods", [(), (CompressUpdates(),)], ids=["weights", "updates"])


def test_a_round_ends_at_its_deadline(tmp_path):
    w, events = run(grid_of(stepping([1, 5]), [1, 25]), tmp_path, cutoff=Deadline(10))
    (cut,) = of(events, "cut")
    assert cut["time"] == pytest.approx(10, abs=0.01)
    assert (cut["reason"], cut["waiting"]) == ("deadline 10 s", ["n1"])
    np.testing.assert_allclose(w, 1)


def test_a_round_ends_with_its_first_k(tmp_path):
    _, events = run(
        grid_of(stepping([1, 2, 3, 4]), [1, 2, 3, 40]), tmp_path, cutoff=FirstK(0.75) | Deadline(60)
    )
    (cut,) = of(events, "cut")
    assert cut["time"] == pytest.approx(3, abs=0.3)
    assert nodes_of(events, "reply_accepted") == ["n0", "n1", "n2"]


def test_the_callers_timeout_cuts_a_round_that_waits_for_all(tmp_path):
    _, events = run(grid_of(stepping([1, 5]), [1, 500]), tmp_path, timeout=30)
    assert of(events, "cut")[0]["reason"] == "timeout 30 s"


@BOTH_FORMS
def test_a_late_update_counts_from_the_model_it_started_from(tmp_path, mods):
    # n0 pulls to 1 in every round, n1 to 8 once, begun at 0 and folded in two versions later
    grid = grid_of(stepping([1.0, 8.0]), [4, 10], mods)
    w, events = run(grid, tmp_path, rounds=3, cutoff=FirstK(1), staleness=Polynomial(0.5))
    (late,) = of(events, "reply_late")
    assert (late["staleness"], late["asked_round"]) == (2, 1)
    worth = 3**-0.5
    assert late["weight"] == pytest.approx(worth, abs=1e-6)
    # fresh: 1 against a current model of 1; late: the update 8 - 0
    expected = (1.0 + worth * (1.0 + 8.0)) / (1 + worth)
    np.testing.assert_allclose(w, expected)


def test_a_discarded_late_update_changes_nothing(tmp_path):
    grid = grid_of(stepping([1.0, 8.0]), [4, 10])
    w, events = run(grid, tmp_path, rounds=3, cutoff=FirstK(1), staleness=Discard())
    assert [e["weight"] for e in of(events, "reply_late")] == [0]
    np.testing.assert_allclose(w, 1)


def test_a_busy_node_is_not_asked_again_before_it_answers(tmp_path):
    _, events = run(grid_of(stepping([1, 2]), [2, 9]), tmp_path, rounds=8, cutoff=FirstK(1))
    busy = 0
    for event in events:
        if event.get("node") == "n1":
            busy += {"sent": 1, "reply_late": -1, "reply_accepted": -1}[event["event"]]
        assert busy in (0, 1)
    assert len(of(events, "sent", node="n1")) >= 2


def test_too_old_updates_are_dropped(tmp_path):
    grid = grid_of(stepping([1, 2]), [1, 20])
    _, events = run(grid, tmp_path, rounds=30, cutoff=FirstK(1), staleness=Polynomial(max_staleness=2))
    assert of(events, "reply_late")
    assert {e["weight"] for e in of(events, "reply_late")} == {0}


def lying(bad):
    """Node 0 answers what ``bad`` makes of a good reply; node 1 is honest and answers 7."""

    def reply_of(partition, received):
        good = {"w": np.full(3, 7.0)}, {"num-examples": 1}
        return bad(*good) if partition == 0 else good

    return reply_of


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (lambda w, m: ({"w": np.array([1, np.nan, 1])}, m), "NaN or infinite"),
        (lambda w, m: ({"w": np.array([1, -np.inf, 1])}, m), "NaN or infinite"),
        (lambda w, m: ({"v": w["w"]}, m), "differ in name"),
        (lambda w, m: (w | {"v": w["w"]}, m), "differ in name"),
        (lambda w, m: ({}, m), "differ in name"),
        (lambda w, m: ({"w": np.ones(4)}, m), r"float64 \(4,\), expected float64 \(3,\)"),
        (lambda w, m: ({"w": np.ones((3, 1))}, m), r"\(3, 1\)"),
        (lambda w, m: ({"w": w["w"].astype(np.float32)}, m), "float32"),
        (lambda w, m: (w, {"loss": 1.0}), "lack the weight 'num-examples'"),
        (lambda w, m: (w, {"num-examples": [1, 2]}), "lack the weight"),
        (lambda w, m: (w, {"num-examples": -1}), "must be >= 0"),
        (lambda w, m: (w, {"num-examples": float("nan")}), "must be >= 0"),
    ],
)
@BOTH_FORMS
def test_a_bad_reply_is_refused_and_the_round_goes_on(tmp_path, bad, reason, mods):
    w, events = run(grid_of(lying(bad), 2, mods), tmp_path, rounds=2)
    refused = of(events, "reply_refused")
    assert {e["node"] for e in refused} == {"node-0"}
    assert len(refused) == 2
    assert re.search(reason, refused[0]["reason"])
    np.testing.assert_allclose(w, 7)
    rounds = json.loads((tmp_path / "result.json").read_text())["rounds"]
    assert [(r["refused"], r["replied"]) for r in rounds] == [(1, 1), (1, 1)]


def test_an_update_against_another_version_is_refused(tmp_path):
    class Liar(CompressUpdates):
        def __call__(self, msg, context, call_next):
            reply = super().__call__(msg, context, call_next)
            reply.content["flower-hpc"]["base-version"] = 17
            return reply

    with pytest.raises(RunError, match="rounds in a row"):
        run(grid_of(stepping([1, 2]), 2, [Liar()]), tmp_path, rounds=3)
    assert "against version 17" in of(read_events(tmp_path / "events.jsonl"), "reply_refused")[0]["reason"]


def test_a_raising_client_is_an_error_of_its_own(tmp_path):
    def reply_of(partition, received):
        if partition == 0:
            raise ZeroDivisionError("no data")
        return {"w": np.ones(3)}, {"num-examples": 1}

    w, events = run(grid_of(reply_of, 2), tmp_path)
    assert "no data" in of(events, "reply_failed")[0]["reason"]
    np.testing.assert_allclose(w, 1)


def test_when_every_client_fails_the_run_ends_with_an_error(tmp_path):
    def reply_of(partition, received):
        raise ZeroDivisionError("no data")

    with pytest.raises(RunError, match=r"2 rounds in a row were skipped: 0 usable replies.*no data"):
        run(grid_of(reply_of, 2), tmp_path, rounds=9, max_failed_rounds=2)
    events = list(read_events(tmp_path / "events.jsonl"))
    assert of(events, "run_failed")[0]["exit_code"] == 1
    assert len(of(events, "round_skipped")) == 2


def test_too_few_nodes_skip_the_round_after_a_bounded_wait(tmp_path):
    grid = grid_of(stepping([1]), 1)
    with pytest.raises(RunError, match="1 nodes online, 1 idle after 20 s; needs 2 online"):
        run(grid, tmp_path, rounds=9, node_wait_s=20)
    assert grid.clock.now() == pytest.approx(60, abs=1)


def test_a_skipped_round_keeps_what_came_for_the_next(tmp_path):
    grid = grid_of(stepping([1, 3]), [1, 8])
    options = {"cutoff": Deadline(4), "min_replies": 2, "grace_s": 1}
    w, events = run(grid, tmp_path, rounds=2, **options)
    assert of(events, "round_skipped", round=1)
    assert of(events, "aggregated", round=2, replies=2)
    np.testing.assert_allclose(w, 1)


def test_grace_waits_for_the_fewest_replies(tmp_path):
    grid = grid_of(stepping([1, 3]), [6, 8])
    _, events = run(grid, tmp_path, cutoff=Deadline(4), grace_s=5)
    assert of(events, "cut")[0]["time"] == pytest.approx(6, abs=0.3)
    assert nodes_of(events, "reply_accepted") == ["n0"]


def test_a_node_that_goes_away_is_not_waited_for(tmp_path):
    nodes = [InProcessNode("here"), InProcessNode("gone", 10, offline=[(5, 1e9)])]
    _, events = run(grid_of(stepping([1, 2]), nodes), tmp_path)
    assert of(events, "cut")[0]["time"] == pytest.approx(5, abs=0.3)


def test_a_node_that_comes_back_without_its_work_is_asked_again(tmp_path):
    nodes = [InProcessNode("here", 3), InProcessNode("back", 6, offline=[(2, 8)])]
    _, events = run(grid_of(stepping([1, 2]), nodes), tmp_path, rounds=6)
    assert of(events, "node_lost", node="back")
    assert of(events, "reply_accepted", node="back")


def test_a_message_that_is_never_answered_makes_its_node_suspect_and_probed(tmp_path):
    nodes = [InProcessNode("sound", 5), InProcessNode("dead", float("inf"))]
    grid = grid_of(stepping([1, 2]), nodes)
    _, events = run(grid, tmp_path, rounds=60, cutoff=Deadline(5), lost_after_s=20)
    asked = [e["time"] for e in of(events, "sent", node="dead")]
    lost = [e["time"] for e in of(events, "node_lost", node="dead")]
    assert lost[0] == pytest.approx(20, abs=1)
    assert len(asked) >= 3
    assert asked[1] - lost[0] >= 55  # it rests a minute, then twice as long
    assert asked[2] - lost[1] >= 115
    # a probe is not waited for: no round is longer than the sound node takes
    assert max(e["seconds"] for e in of(events, "round_finished")[1:]) < 7


def test_deadline_s_is_the_cut_only_where_late_work_is_discarded(tmp_path):
    seen = []

    class Spy(KeepBudget):
        def __call__(self, msg, context, call_next):
            seen.append(msg.content["config"]["flower-hpc.deadline-s"])
            return super().__call__(msg, context, call_next)

    for staleness in (Discard(), Polynomial()):
        run(grid_of(stepping([1, 2]), 2, [Spy()]), tmp_path, cutoff=Deadline(7), staleness=staleness)
    assert seen == [7, 7, 3600, 3600]


def test_names_come_from_replies_where_the_grid_has_none(tmp_path):
    grid = grid_of(stepping([1, 2]), 2, [CompressUpdates()], named=False)
    _, events = run(grid, tmp_path, rounds=2)
    assert nodes_of(events, "sent", round=1) == ["1", "2"]
    assert nodes_of(events, "sent", round=2) == ["node-0", "node-1"]


def test_selection_asks_a_share_of_the_nodes(tmp_path):
    grid = grid_of(stepping(range(10)), 10)
    _, events = run(grid, tmp_path, rounds=3, selection=RandomSelection(0.3), seed=1)
    assert [len(of(events, "sent", round=r)) for r in (1, 2, 3)] == [3, 3, 3]
    assert len({tuple(nodes_of(events, "sent", round=r)) for r in (1, 2, 3)}) > 1


def test_the_callers_config_reaches_the_nodes_unchanged_and_stays_his(tmp_path):
    config, seen = ConfigRecord({"lr": 0.1}), []

    class Spy(KeepBudget):
        def __call__(self, msg, context, call_next):
            seen.append(dict(msg.content["config"]))
            return call_next(msg, context)

    grid = grid_of(stepping([1, 2]), 2, [Spy()])
    HybridStrategy(fraction_evaluate=0.0).start(grid, weights(), num_rounds=2, train_config=config)
    assert dict(config) == {"lr": 0.1}
    assert [c["server-round"] for c in seen] == [1, 1, 2, 2]
    assert all(c["lr"] == 0.1 for c in seen)


def test_nodes_and_server_evaluate(tmp_path):
    strategy = HybridStrategy(run_dir=tmp_path)
    grid = grid_of(stepping([1, 2]), 2)
    central = {}

    def evaluate_fn(number, arrays):
        central[number] = to_weights(arrays)["w"][0]
        return MetricRecord({"accuracy": 0.5, "loss": float("nan")})

    result = strategy.start(grid, weights(), num_rounds=1, evaluate_fn=evaluate_fn)
    assert central == {0: 0.0, 1: 1.5}
    assert result.evaluate_metrics_clientapp[1]["loss"] == 0.5
    saved = json.loads((tmp_path / "result.json").read_text())  # NaN is no JSON: null
    assert (saved["accuracy"], saved["rounds"][0]["replied"]) == (0.5, 2)
    assert (tmp_path / "model.safetensors").stat().st_size > 0


def test_the_wall_clock_gives_the_same_round(tmp_path):
    nodes = [InProcessNode("fast", 0.1), InProcessNode("slow", 1.2)]
    grid = grid_of(stepping([1, 3]), nodes, clock=WALL)
    _, events = run(grid, tmp_path, rounds=3, cutoff=FirstK(1) | Deadline(5))
    assert of(events, "cut")[0]["waiting"] == ["slow"]
    assert of(events, "run_finished")


def test_replies_are_taken_while_the_server_evaluates(tmp_path):
    # slow answers, and leaves, while the server is busy evaluating: its update must not be lost
    start = WALL.now()
    nodes = [InProcessNode("fast", 0.1), InProcessNode("slow", 0.5, offline=[(start + 2.0, start + 1e6)])]
    grid = grid_of(stepping([1, 3]), nodes, clock=WALL)

    def evaluate_fn(number, arrays):
        WALL.sleep(2.5 if number == 1 else 0)

    strategy = HybridStrategy(cutoff=FirstK(1), fraction_evaluate=0.0, run_dir=tmp_path, min_nodes=1)
    strategy.start(grid, weights(), num_rounds=2, evaluate_fn=evaluate_fn)
    assert nodes_of(read_events(tmp_path / "events.jsonl"), "reply_late") == ["slow"]


@BOTH_FORMS
def test_a_reply_that_comes_while_the_model_is_computed_is_folded_into_the_next(tmp_path, mods):
    # slow answers while the inner strategy joins fast's reply, and nobody else is in flight
    class Slow(flower.FedAvg):
        def aggregate_train(self, server_round, replies):
            WALL.sleep(1.5 if server_round == 1 else 0)
            return super().aggregate_train(server_round, replies)

    inner = Slow(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
    nodes = [InProcessNode("fast", 0.1), InProcessNode("slow", 0.8)]
    grid = grid_of(stepping([1, 3]), nodes, mods, clock=WALL)
    _, events = run(grid, tmp_path, rounds=2, cutoff=FirstK(1), inner=inner)
    assert nodes_of(events, "reply_late") == ["slow"]
    assert of(events, "aggregated", round=2)[0]["late"] == 1


def dp(clients):
    return flower.DifferentialPrivacyServerSideFixedClipping(
        flower.FedAvg(fraction_evaluate=0.0), 0.1, 10.0, clients
    )


def test_a_dp_round_counts_only_with_exactly_its_replies(tmp_path):
    _, events = run(grid_of(stepping([1, 2]), 2), tmp_path, rounds=2, inner=dp(2))
    assert len(of(events, "aggregated")) == 2
    grid = grid_of(stepping([1, 2, 3]), [1, 1, 9])
    with pytest.raises(RunError, match=r"2 replies, but .* needs exactly 3 for its noise"):
        run(grid, tmp_path, rounds=9, inner=dp(3), cutoff=Deadline(5), grace_s=1, max_failed_rounds=1)


def test_dp_takes_no_late_updates():
    with pytest.raises(ConfigError, match=r"staleness must be Discard\(\)"):
        HybridStrategy(inner=dp(2), staleness=Polynomial())
    assert HybridStrategy(inner=dp(2)).settings.worth == Discard()


def test_client_side_clipping_gets_its_norm_through_our_config(tmp_path):
    inner = flower.DifferentialPrivacyClientSideFixedClipping(
        flower.FedAvg(fraction_evaluate=0.0), 1e-9, 1.0, 2
    )
    grid = grid_of(stepping([100, 100]), 2, [CompressUpdates(), fixedclipping_mod, KeepBudget()])
    w, _ = run(grid, tmp_path, inner=inner)
    assert np.linalg.norm(w) == pytest.approx(1.0, abs=1e-3)


def test_an_inner_strategy_below_its_minimum_is_an_error_not_a_wait(tmp_path):
    inner = flower.FedAvg(min_train_nodes=5, min_available_nodes=5)
    with pytest.raises(RunError, match=r"2 nodes online, 2 idle after 9 s; needs 2 online and 5 idle"):
        run(grid_of(stepping([1, 2]), 2), tmp_path, rounds=5, inner=inner, node_wait_s=9)
    inner = flower.FedAvg(min_train_nodes=2)
    with pytest.raises(ConfigError, match="selection chose 1 nodes, FedAvg wants at least 2"):
        run(grid_of(stepping([1, 2]), 2), tmp_path, inner=inner, selection=RandomSelection(0.5))


def test_a_strategy_that_waits_for_more_nodes_is_stopped(tmp_path):
    class Patient(flower.FedAvg):
        def configure_train(self, server_round, arrays, config, grid):
            while len(list(grid.get_node_ids())) < 9:
                pass

    with pytest.raises(RunError, match="waits for more than the 2 nodes"):
        run(grid_of(stepping([1, 2]), 2), tmp_path, inner=Patient())


@pytest.mark.parametrize(
    "options",
    [
        {"min_nodes": 0},
        {"min_replies": -1},
        {"node_wait_s": -1},
        {"grace_s": float("nan")},
        {"lost_after_s": 0},
        {"max_failed_rounds": 0},
        {"fraction_evaluate": 1.5},
        {"cutoff": 3},
        {"staleness": "none"},
        {"inner": "FedAvg"},
        {"inner": HybridStrategy()},
    ],
    ids=named,
)
def test_wrong_options_are_refused_in_one_line(options):
    with pytest.raises(ConfigError) as caught:
        HybridStrategy(**options)
    assert "\n" not in str(caught.value)
    assert next(iter(options)) in str(caught.value)


class Failing(InProcessGrid):
    """Its server fails, so often, when it is asked for replies."""

    def __init__(self, *args, status, times, **more):
        super().__init__(*args, **more)
        self.status, self.times = status, times

    def pull_messages(self, message_ids):
        if self.times:
            self.times -= 1
            request = httpx.Request("POST", "http://superlink/v1/runtime/pull-messages")
            raise httpx.HTTPStatusError("fails", request=request, response=httpx.Response(self.status))
        return super().pull_messages(message_ids)


def failing(status, times):
    nodes = [InProcessNode(f"n{i}", delay_s=i) for i in range(2)]
    return Failing(make_app(stepping([1, 3])), nodes, status=status, times=times)


def test_a_superlink_that_fails_for_a_while_is_asked_again(tmp_path, caplog):
    w, events = run(failing(500, 5), tmp_path, rounds=2)
    np.testing.assert_allclose(w, 2)
    assert len(of(events, "reply_accepted")) == 4
    assert "is asked again" in caplog.text


@pytest.mark.parametrize(("status", "times"), [(500, 10**6), (401, 1)])
def test_one_that_fails_for_ever_or_refuses_ends_the_run(tmp_path, status, times):
    with pytest.raises(httpx.HTTPStatusError):
        run(failing(status, times), tmp_path)
