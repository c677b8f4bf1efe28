"""SCAFFOLD: control variates, both halves together, lead unlike nodes to the optimum of all."""

import math

import numpy as np
import pytest
from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from conftest import grid_of, stepping, weights
from flower_hpc import protocol
from flower_hpc.client import Control
from flower_hpc.compression import CompressUpdates
from flower_hpc.errors import ConfigError, RunError
from flower_hpc.records import from_bytes, to_record, to_weights
from flower_hpc.strategies import Deadline, Discard, FedAvg, FirstK, Scaffold
from flower_hpc.strategies.loop.control import Control as ServerControl
from flower_hpc.telemetry import read_events
from flower_hpc.transport import InProcessGrid, InProcessNode
from processes import named

CURVATURE, TARGET, LR, STEPS = (1.0, 4.0), (-1.0, 1.0), 0.1, 5
# the mean of a_i (w - t_i)^2 / 2 is least at sum a t / sum a
OPTIMUM = sum(a * t for a, t in zip(CURVATURE, TARGET, strict=True)) / sum(CURVATURE)


def app_of(mods=(), states=None, spoil=lambda partition, reply: None):
    """Nodes that descend their own quadratics for several steps, corrected where the message asks for it."""
    app = ClientApp(mods=list(mods))

    @app.train()
    def train(message, context):
        received, control = to_weights(message.content["arrays"]), Control.of(message, context)
        i, y = context.node_config[protocol.PARTITION_ID], received["w"].copy()
        for _ in range(STEPS):
            y -= LR * (CURVATURE[i] * (y - TARGET[i]) + (control.correction["w"] if control else 0))
        metrics = MetricRecord({"num-examples": 1, "num-steps": STEPS})
        reply = Message(RecordDict({"arrays": to_record({"w": y}), "metrics": metrics}), reply_to=message)
        if control:
            control.update(received, {"w": y}, LR, STEPS)
            control.attach(reply)
        if states is not None and protocol.CONTROL in context.state:
            states.append((i, to_weights(context.state[protocol.CONTROL])["w"][0]))
        spoil(i, reply)
        return reply

    return app


def trained(strategy, nodes=2, rounds=150, **options):
    result = strategy.start(InProcessGrid(app_of(**options), nodes), weights(3.0), num_rounds=rounds)
    return to_weights(result.arrays)["w"]


@pytest.mark.parametrize("mods", [(), (CompressUpdates(),)], ids=["weights", "updates"])
def test_scaffold_converges_to_the_optimum_of_all_where_fedavg_does_not(mods):
    np.testing.assert_allclose(trained(Scaffold(fraction_evaluate=0.0), mods=mods), OPTIMUM, atol=1e-6)
    # FedAvg stops where the nodes' moves, (1 - (1 - lr a)^steps) (t - w), cancel
    pull = [1 - (1 - LR * a) ** STEPS for a in CURVATURE]
    drift = sum(p * t for p, t in zip(pull, TARGET, strict=True)) / sum(pull)
    np.testing.assert_allclose(trained(FedAvg(fraction_evaluate=0.0), mods=mods), drift, atol=1e-6)
    assert abs(drift - OPTIMUM) > 0.1


def test_a_smaller_server_step_converges_to_the_same_optimum():
    strategy = Scaffold(server_lr=0.5, fraction_evaluate=0.0)
    np.testing.assert_allclose(trained(strategy, rounds=250), OPTIMUM, atol=1e-6)


def test_a_nodes_variate_survives_between_rounds_and_becomes_its_gradient_at_the_optimum():
    states = []
    trained(Scaffold(fraction_evaluate=0.0), states=states)
    for i, (a, t) in enumerate(zip(CURVATURE, TARGET, strict=True)):
        own = [value for node, value in states if node == i]
        assert len(own) == 149  # what the last one came to nobody has told
        assert own[-1] == pytest.approx(a * (OPTIMUM - t), abs=1e-5)


def test_a_node_takes_back_what_the_server_refused():
    """Every other reply of a node is refused; its variate moves only with those that count."""
    seen = []

    def spoil(partition, reply):
        if partition == 0:
            seen.append(0)
            if len(seen) % 2:
                reply.content["arrays"] = to_record({"w": np.zeros(5)})

    strategy = Scaffold(fraction_evaluate=0.0)
    np.testing.assert_allclose(trained(strategy, spoil=spoil, rounds=400), OPTIMUM, atol=1e-3)


def test_a_late_update_still_leads_to_the_optimum():
    strategy = Scaffold(cutoff=FirstK(1), fraction_evaluate=0.0)
    nodes = [InProcessNode("fast", 1.0), InProcessNode("slow", 2.6)]
    np.testing.assert_allclose(trained(strategy, nodes, rounds=300), OPTIMUM, atol=1e-6)


def test_a_late_reply_that_is_discarded_does_not_move_where_training_converges():
    # its node has changed its own variate: the server's must stay the mean of all (c = sum c_i / N)
    def delay(message):
        return 15.0 if message.metadata.group_id == "3" else 1.0

    strategy = Scaffold(cutoff=Deadline(10), staleness=Discard(), fraction_evaluate=0.0)
    nodes = [InProcessNode("sound"), InProcessNode("late-once", delay)]
    np.testing.assert_allclose(trained(strategy, nodes, rounds=250), OPTIMUM, atol=1e-4)


def test_a_reply_without_a_control_variate_is_refused_and_named(tmp_path):
    strategy = Scaffold(run_dir=tmp_path, fraction_evaluate=0.0, max_failed_rounds=1)
    with pytest.raises(RunError, match="1 rounds in a row were skipped"):
        strategy.start(grid_of(stepping([1, 2]), 2), weights(), num_rounds=2)
    refused = [e for e in read_events(tmp_path / "events.jsonl") if e["event"] == "reply_refused"]
    assert sorted(e["node"] for e in refused) == ["node-0", "node-1"]
    assert {e["reason"] for e in refused} == {
        "it carries no control variate: its app lacks flower_hpc.client.Control"
    }


@pytest.mark.parametrize("data", [b"", b"x" * 40, 3.5])
def test_a_control_variate_that_does_not_fit_is_refused_and_the_others_count(tmp_path, data):
    def spoil(partition, reply):
        if partition == 0:
            reply.content[protocol.CONTROL][protocol.CONTROL] = data

    w = trained(Scaffold(run_dir=tmp_path, fraction_evaluate=0.0), rounds=3, spoil=spoil)
    events = list(read_events(tmp_path / "events.jsonl"))
    assert {e["node"] for e in events if e["event"] == "reply_refused"} == {"node-0"}
    assert [e["replies"] for e in events if e["event"] == "aggregated"] == [1, 1, 1]
    assert np.isfinite(w).all()


def test_the_servers_variate_moves_by_the_share_of_nodes_that_were_heard():
    # equation 5: c + |S| / N mean (c_i+ - c_i), the mean over two of five nodes
    control = ServerControl({"w": np.array([1.0, -2.0])})
    for change in ([2.0, 0.0], [4.0, 1.0]):
        control.add({"w": np.array(change)})
    told = control.asks()[protocol.CONTROL]
    assert control.asks()[protocol.CONTROL] is told, "made once, however many nodes it is sent to"
    control.step(5)
    np.testing.assert_allclose(control.variate["w"], [1 + 2 / 5 * 3, -2 + 2 / 5 * 0.5])
    assert from_bytes(control.asks()[protocol.CONTROL], control.variate)["w"].tolist() == [2.2, -1.8]
    control.step(5)  # nobody was heard: it stays
    np.testing.assert_allclose(control.variate["w"], [2.2, -1.8])
    zero = ServerControl.of({"w": np.ones(2, np.float32), "n": np.array(3)})
    assert {k: x.dtype for k, x in zero.variate.items()} == {"w": np.float32}
    assert from_bytes(zero.asks()[protocol.CONTROL], zero.variate)["w"].tolist() == [0, 0]


@pytest.mark.parametrize("options", [{"control": True}, {"inner": None}, {"server_lr": math.nan}], ids=named)
def test_wrong_values_are_refused_in_one_line(options):
    with pytest.raises(ConfigError, match=rf"\A.*{next(iter(options))}.*\Z"):
        Scaffold(**options)
