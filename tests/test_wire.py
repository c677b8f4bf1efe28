"""Records, codecs, marks, budgets: what crosses the wire comes back, and lies are found out."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from conftest import make_app
from flower_hpc import protocol
from flower_hpc.client import KeepBudget, budget_of, proximal_term
from flower_hpc.clock import VirtualClock
from flower_hpc.compression import CompressUpdates, Identity, pack, unpack
from flower_hpc.errors import ConfigError, ReplyError
from flower_hpc.records import add, num_bytes, read_numpy, subtract, to_array, to_record, to_weights
from flower_hpc.transport import InProcessGrid

ARRAYS = hnp.arrays(
    st.sampled_from(["f2", "f4", "f8", "i1", "u8", "i8", "?", "c8", ">f4"]),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)


@given(ARRAYS)
def test_an_array_comes_back_bit_for_bit(x):
    for back in (
        read_numpy(to_array(x)),
        unpack(pack(Identity(), x)),
        read_numpy(to_array(np.asfortranarray(x) if x.ndim else x)),  # 0-d would become 1-d
    ):
        assert (back.dtype, back.shape) == (x.dtype, x.shape)
        assert back.tobytes() == x.tobytes()


@given(ARRAYS)
def test_an_array_is_written_as_flower_does(x):
    for one in (x, np.asfortranarray(x) if x.ndim else x, x[..., ::2] if x.ndim else x):
        assert to_array(one) == Array(one)


@pytest.mark.parametrize(
    "lie",
    [
        lambda a: Array(a.dtype, (10**9,), a.stype, a.data),
        lambda a: Array("float32", a.shape, a.stype, a.data),
        lambda a: Array(a.dtype, a.shape, a.stype, a.data[:-1]),
        lambda a: Array(a.dtype, a.shape, a.stype, a.data + b"x"),
        lambda a: Array(a.dtype, a.shape, a.stype, b""),
        lambda a: Array(a.dtype, a.shape, a.stype, b"\x93NUMPY\x01\x00\xff\xff" + b"{" * 99),
        lambda a: Array(a.dtype, a.shape, "pickle", a.data),
        lambda a: Array(a.dtype, a.shape, a.stype, a.data.replace(b"(3,)", b"(-3)")),
    ],
)
def test_bytes_that_are_not_what_they_say_are_refused(lie):
    with pytest.raises(ReplyError):
        unpack(lie(to_array(np.ones(3))))


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_and_never_worse(data):
    with pytest.raises(ReplyError):
        unpack(Array("float64", (3,), "numpy.ndarray", data))


def test_a_huge_declared_shape_takes_no_memory():
    header = to_array(np.zeros(3)).data[:128].replace(b"(3,), }   ", b"(3000000000000,), }"[:10])
    with pytest.raises(ReplyError):
        read_numpy(Array("float64", (3_000_000_000_000,), "numpy.ndarray", header))


def test_an_update_is_differences_of_floats_and_values_of_the_rest():
    base = {"w": np.array([1.5, 2.0]), "n": np.array(3), "flag": np.array(True)}
    local = {"w": np.array([2.0, 1.0]), "n": np.array(5), "flag": np.array(False)}
    update = subtract(local, base)
    np.testing.assert_array_equal(update["w"], [0.5, -1.0])
    assert (update["n"], update["flag"]) == (5, False)
    back = add(base, update)
    assert all(np.array_equal(back[k], local[k]) for k in local)


def ask(grid_config, mods):
    app = make_app(lambda _, w: ({k: x + 1 for k, x in w.items()}, {"num-examples": 1}), mods)
    InProcessGrid(app, 1)  # says who we are, so that messages can be made here
    content = RecordDict({"arrays": to_record({"w": np.full(2, 10.0)}), "config": ConfigRecord(grid_config)})
    return app(
        Message(content, 1, "train"), Context(1, 1, {"partition-id": 0, "name": "a-1"}, RecordDict(), {})
    )


def test_a_client_subtracts_only_when_asked():
    reply = ask({}, [CompressUpdates()])
    assert to_weights(reply.content["arrays"])["w"][0] == 11
    assert protocol.MARK not in reply.content
    reply = ask({protocol.REPLY_AS: protocol.UPDATE, protocol.VERSION: 4}, [CompressUpdates()])
    assert to_weights(reply.content["arrays"])["w"][0] == 1
    assert protocol.mark_of(reply) == protocol.Mark("update", 4, "a-1", decodes=True)


def test_a_client_without_the_mod_replies_with_weights():
    reply = ask({protocol.REPLY_AS: protocol.UPDATE, protocol.VERSION: 4}, [])
    assert protocol.mark_of(reply) == protocol.Mark("weights", None, "")


def test_a_budget_counts_from_receipt():
    clock = VirtualClock(100)
    seen = []

    def call_next(msg, context):
        clock.sleep(4)
        seen.append(budget_of(msg, clock))
        return msg

    InProcessGrid(make_app(lambda *_: None), 1)
    config = ConfigRecord({protocol.DEADLINE_S: 10})
    message = Message(RecordDict({"config": config}), 1, "train")
    KeepBudget(clock)(message, Context(1, 1, {}, RecordDict(), {}), call_next)
    (budget,) = seen
    assert budget.left() == 6
    assert not budget.spent()
    clock.sleep(6)
    assert budget.spent()


def test_without_a_deadline_the_budget_is_endless():
    InProcessGrid(make_app(lambda *_: None), 1)
    message = Message(RecordDict({"m": MetricRecord({"a": 1})}), 1, "train")
    assert budget_of(message).left() == float("inf")


def test_the_proximal_term_is_half_mu_times_the_squared_norm_over_trainable_parameters():
    torch = pytest.importorskip("torch")
    w = [torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([[3.0]], requires_grad=True)]
    frozen = torch.tensor([100.0])
    anchors = [torch.zeros(2), torch.ones(1, 1), torch.zeros(1)]
    term = proximal_term([*w, frozen], anchors, 0.5)
    assert term.item() == pytest.approx(0.25 * (1 + 4 + 4))
    term.backward()
    torch.testing.assert_close(w[0].grad, torch.tensor([0.5, 1.0]))
    assert proximal_term(w, anchors[:2], 0) == 0
    with pytest.raises(ConfigError, match="mu must be >= 0"):
        proximal_term(w, anchors[:2], -1)


def test_bytes_are_those_of_the_arrays():
    record = ArrayRecord({"a": to_array(np.zeros(1000, np.float32))})
    assert 4000 < num_bytes(record) < 4200
