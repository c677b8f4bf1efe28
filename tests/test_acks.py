"""How nodes hear what became of their updates, and that deadlines then train no one away."""

import numpy as np

from compressed import TARGETS, distance, events, run
from conftest import grid_of, make_app, stepping
from flower_hpc import protocol
from flower_hpc.compression import CompressUpdates
from flower_hpc.strategies import Deadline, Discard, FirstK
from flower_hpc.strategies.loop.acks import Acks
from flower_hpc.transport import InProcessGrid, InProcessNode


def test_tickets_go_from_sent_to_received():
    acks = Acks()
    first = acks.asks("n", 7)[protocol.TICKET]
    assert acks.came("n", first)
    acks.wait([("n", first)])
    second = acks.asks("n", 7)
    assert (second[protocol.RECEIVED], second[protocol.WAITING]) == ([], [first])
    acks.receive([("n", first)])
    third = acks.asks("n", 7)
    assert (third[protocol.RECEIVED], third[protocol.WAITING]) == ([first], [])
    assert not acks.came("n", second[protocol.TICKET])  # void: the node has taken it back
    assert acks.asks("n", 7)[protocol.RECEIVED] == [first]  # nobody knows whether it has heard
    fifth = acks.asks("n", 7)
    assert acks.came("n", fifth[protocol.TICKET])
    assert acks.asks("n", 7)[protocol.RECEIVED] == []
    assert not acks.came("other", "made up")


def test_a_new_id_goes_on_with_its_names_tickets_and_a_namesake_has_its_own():
    acks = Acks()
    first = acks.asks("n", 7)[protocol.TICKET]
    other = acks.asks("n", 8, online={7, 8})[protocol.TICKET]  # two nodes of one name
    assert acks.came("n", first)
    acks.wait([("n", first)])
    assert acks.came("n", other)
    assert acks.asks("n", 8, online={7, 8})[protocol.WAITING] == []
    assert acks.asks("n", 9, online={8, 9})[protocol.WAITING] == [first]  # 7 has come back as 9


def test_two_nodes_of_one_name_both_count(tmp_path):
    nodes = [InProcessNode("twin", delay_s=1), InProcessNode("twin", delay_s=1)]
    grid = InProcessGrid(make_app(stepping(TARGETS), [CompressUpdates()]), nodes)
    w = run(grid, 1, compression="int8", run_dir=tmp_path)["w"]
    np.testing.assert_allclose(w, (TARGETS[0] + TARGETS[1]) / 2, atol=0.05)
    assert len(events(tmp_path, "reply_accepted")) == 2


def test_an_update_that_weighs_nothing_is_sent_again():
    """A node with no examples in the first round has its update counted in the second."""

    def reply_of(partition, received):
        seen.append(partition)
        weight = 0 if partition == 0 and seen.count(0) == 1 else 1
        return {"w": received["w"] + np.float32(1)}, {"num-examples": weight}

    seen = []
    w = run(grid_of(reply_of, 1, [CompressUpdates()]), 3, compression="int8", min_nodes=1)["w"]
    np.testing.assert_allclose(w, 3, atol=0.05)


def test_a_reply_with_a_made_up_ticket_is_told_and_does_not_count(tmp_path):
    class Liar(CompressUpdates):
        def __call__(self, msg, context, call_next):
            reply = super().__call__(msg, context, call_next)
            if context.node_config[protocol.PARTITION_ID] == 0:
                reply.content[protocol.MARK][protocol.TICKET] = "made up"
            return reply

    w = run(grid_of(stepping(TARGETS), 2, [Liar()]), 1, compression="int8", run_dir=tmp_path)["w"]
    np.testing.assert_allclose(w, TARGETS[1], atol=0.05)
    assert [e["given_back"] for e in events(tmp_path, "reply_late")] == [True]
    assert len(events(tmp_path, "reply_accepted")) == 1


def test_a_late_update_that_its_node_took_back_is_dropped(tmp_path):
    """A node that comes back under its key is asked anew; what it sent before counts as lost."""
    nodes = [InProcessNode("n0", delay_s=1), InProcessNode("n1", delay_s=1)]
    grid = grid_of(stepping(TARGETS, 0.02), nodes, [CompressUpdates()])
    w = run(grid, 5, compression="topk(0.2)", run_dir=tmp_path)
    assert np.isfinite(w["w"]).all()
    assert not any(e.get("given_back") for e in events(tmp_path, "reply_late"))


def cut_runs(feedback, acked=True, rounds=200):
    """A deadline cuts 30 % of the replies, all of three nodes; the fixed point is the mean of the targets."""
    rng = np.random.default_rng(7)
    slow = {(i, r): i < 3 and rng.random() < 0.8 for i in range(8) for r in range(rounds + 9)}

    class Deaf(CompressUpdates):
        """Hears that all arrived."""

        def _compress(self, update, config, keeping):
            pending = (keeping.load("residual") or {}).get("pending", {})
            return super()._compress(update, config | {protocol.RECEIVED: list(pending)}, keeping)

    def delay(partition, message):
        return 11.0 if slow[partition, message.content["config"]["server-round"]] else 1.0

    nodes = [InProcessNode(f"n{i}", delay_s=lambda m, i=i: delay(i, m)) for i in range(8)]
    grid = grid_of(stepping(TARGETS, 0.02), nodes, [CompressUpdates() if acked else Deaf()])
    how = {"up": "topk(0.1)", "feedback": feedback}
    return distance(
        run(grid, rounds, compression=how, cutoff=Deadline(10), staleness=Discard(), lost_after_s=5000.0)
    )


def test_with_cuts_feedback_with_notes_beats_feedback_without_beats_none():
    noted, deaf, none = cut_runs(True), cut_runs(True, acked=False), cut_runs(False)
    assert noted < 0.7 * deaf
    assert deaf < none


def test_first_k_with_late_updates_converges_compressed():
    grid = grid_of(stepping(TARGETS, 0.02), [1.0, 1.1, 1.2, 1.3, 1.4, 3.0, 5.0, 9.0], [CompressUpdates()])
    packed = distance(run(grid, 400, compression="topk(0.1) >> int8", cutoff=FirstK(0.6)))
    grid = grid_of(stepping(TARGETS, 0.02), [1.0, 1.1, 1.2, 1.3, 1.4, 3.0, 5.0, 9.0])
    plain = distance(run(grid, 400, cutoff=FirstK(0.6)))  # off the mean: late updates count less
    assert packed < plain + 0.1
