"""Codecs: what comes back, how far from it, and by which names."""

import json
from base64 import b64decode
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from flwr.app import Array
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn

from flower_hpc.compression import CODECS, Chain, Compression, Identity, Int8, TopK, Zstd, pack, parse, unpack
from flower_hpc.compression.positions import read_positions, write_positions
from flower_hpc.compression.update import Seed, decode, encode_update
from flower_hpc.errors import ConfigError
from flower_hpc.records import dense, values_of

LOSSLESS = ["raw", "zstd", "zstd(19)", "shuffle>>zstd", "shuffle(8)>>zstd(1)", "raw>>shuffle(2)"]
LOSSY = [
    "float16",
    "bfloat16",
    "int8",
    "int8(64)",
    "int8(1024,stochastic)",
    "int4",
    "int4(8,stochastic)",
    "error_bounded(0.001)",
    "error_bounded(1e-4,false)",
    "topk(0.1)",
    "topk(0.3,array)",
    "topk(1.0)",
    "randomk(0.25)",
    "randomk(0.25,7,true)",
    "topk(0.1)>>int8",
    "topk(0.1)>>int4>>zstd",
    "topk(0.5)>>float16>>shuffle(2)>>zstd",
    "topk(0.2)>>error_bounded(0.01)",
    "randomk(0.5)>>int8(8)",
    "int8>>zstd",
]
SHAPES = [(), (0,), (3, 0, 2), (1,), (7,), (1023,), (1025,), (4, 3, 5), (70, 1000)]
DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
FIXTURES = json.loads((Path(__file__).parent / "fixtures" / "codecs.json").read_text())


def noise(shape=(5000,), dtype=np.float32, seed=0):
    return np.asarray(np.random.default_rng(seed).normal(size=shape) * 1e-2).astype(dtype)


def back(spec, x, seed=0):
    codec = parse(spec)
    return dense(codec.decode(codec.encode(x, seed), x.shape, x.dtype))


@pytest.mark.parametrize("spec", LOSSLESS + LOSSY)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
def test_every_codec_takes_every_float_and_shape(spec, dtype):
    for shape in SHAPES:
        x = noise(shape, dtype)
        y = dense(unpack(pack(parse(spec), x)))
        assert (y.shape, y.dtype) == (x.shape, x.dtype)
        assert np.isfinite(y.astype(np.float64)).all()


@pytest.mark.parametrize("spec", LOSSLESS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
def test_lossless_chains_give_back_every_bit(spec, dtype):
    square = noise((70, 30), dtype)
    for x in (square, square.T, noise((90,), dtype)[::-3], noise((), dtype)):
        assert back(spec, x).tobytes() == np.ascontiguousarray(x).tobytes()
    odd = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-40], np.float64).astype(np.float32)
    assert dense(unpack(pack(parse(spec), np.tile(odd, 99)))).tobytes() == np.tile(odd, 99).tobytes()


@pytest.mark.parametrize("spec", LOSSY)
def test_strided_and_read_only_arrays_are_read_as_they_look(spec):
    x = noise((60, 50)).T[::2]
    x.flags.writeable = False
    same = np.array(x, order="C")
    np.testing.assert_array_equal(back(spec, x), back(spec, same))


@settings(max_examples=60, deadline=None)
@given(hn.arrays(np.float32, st.integers(1, 3000), elements=st.floats(-(2.0**99), 2.0**99, width=32)))
def test_errors_stay_within_their_bounds(x):
    top = float(np.abs(x).max())
    for spec, bound in (("int8(32)", top / 254), ("int4(32)", top / 14)):
        assert np.abs(back(spec, x).astype(float) - x).max() <= bound * (1 + 1e-5) + 2e-35
    for spec, bound in (("int8(32,stochastic)", top / 127), ("int4(32,stochastic)", top / 7)):
        assert np.abs(back(spec, x, 3).astype(float) - x).max() <= bound * (1 + 1e-5) + 2e-35
    assert (np.abs(back("bfloat16", x).astype(float) - x) <= np.abs(x) * 2.0**-8 + 1e-40).all()
    for tolerance in (1e-2, 1e-6):
        y = back(f"error_bounded({tolerance})", x)
        assert (np.abs(y.astype(float) - x) <= top * tolerance * (1 + 1e-9) + np.abs(x) * 2.0**-23).all()


@settings(max_examples=40, deadline=None)
@given(hn.arrays(np.float32, st.integers(1, 300), elements=st.floats(-65000, 65000, width=32)))
def test_half_precision_is_within_its_bound(x):
    assert (np.abs(back("float16", x).astype(float) - x) <= np.maximum(np.abs(x) * 2.0**-11, 3e-8)).all()


@settings(max_examples=60, deadline=None)
@given(
    hn.arrays(np.float32, st.integers(1, 2000), elements=st.floats(-10, 10, width=32)),
    st.floats(0.001, 1),
)
def test_topk_keeps_exactly_the_largest(x, ratio):
    found = TopK(ratio).decode(TopK(ratio).encode(x), x.shape, x.dtype)
    count = min(x.size, max(1, round(ratio * x.size)))
    assert len(found.positions) == count
    np.testing.assert_array_equal(found.values, x[found.positions])
    dropped = np.delete(np.abs(x), found.positions)
    assert dropped.size == 0 or dropped.max() <= np.abs(found.values).min()


@pytest.mark.parametrize("x", [np.zeros(200_000, "f4"), np.ones(200_000, "f4"), noise((200_000,))])
def test_topk_is_exact_for_large_and_for_tied_arrays(x):
    found = TopK(0.01).decode(TopK(0.01).encode(x), x.shape, x.dtype)
    assert len(found.positions) == 2000
    np.testing.assert_array_equal(np.sort(np.abs(found.values)), np.sort(np.abs(x))[-2000:])


def test_topk_over_a_model_takes_the_largest_of_all_arrays():
    arrays = {"a": noise((40, 50)), "b": 2 * noise((1000,), seed=1), "c": 0 * noise((500,))}
    keep = TopK(0.1).choose(arrays)
    assert sum(len(k) for k in keep.values()) == 350
    assert len(keep["b"]) > len(keep["a"]) > len(keep["c"]) == 0
    least = min(np.abs(arrays[k].reshape(-1)[where]).min() for k, where in keep.items() if len(where))
    for name, where in keep.items():
        assert np.delete(np.abs(arrays[name]).reshape(-1), where).max(initial=0) <= least
    each = TopK(0.1, "array").choose(arrays)
    assert [len(each[k]) for k in "abc"] == [200, 100, 50]


@pytest.mark.parametrize("spec", ["int8(16,stochastic)", "int4(16,stochastic)", "randomk(0.1,0,true)"])
def test_stochastic_codecs_are_unbiased_over_500_seeds(spec):
    x, seeds = noise((331,)), 500
    found = np.array([back(spec, x, seed) for seed in range(seeds)], np.float64)
    # Bernstein's inequality: 331 means of numbers that lie so far apart exceed it once in a million
    error, far, log = np.abs(found.mean(0) - x), np.ptp(found, axis=0).max(), np.log(2 * 331 * 1e6)
    assert (error <= np.sqrt(2 * found.var(0) * log / seeds) + 2 * far * log / (3 * seeds)).all()
    assert abs((found.mean(0) - x).mean()) <= 5 * np.sqrt(found.var(0).sum() / seeds) / 331
    assert far > 0


def test_random_entries_are_the_same_for_all_nodes_of_a_round_and_rounding_is_not():
    update = {"w": noise((4000,))}
    places, values = [], []
    for node in "ab":
        how = Compression(up="randomk(0.1) >> int8(64, stochastic)")
        found = decode(encode_update(update, how, Seed(f"r/1/{node}", "r/1")))["w"]
        places.append(found.positions)
        values.append(found.values)
    np.testing.assert_array_equal(*places)
    assert (values[0] != values[1]).any()


def test_equal_seeds_give_equal_bytes_and_other_seeds_others():
    for spec in ("int8(16,stochastic)", "randomk(0.1)"):
        codec, x = parse(spec), noise()
        assert codec.encode(x, 5) == codec.encode(x, 5) != codec.encode(x, 6)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5000), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_positions_come_back_and_are_never_larger_than_a_bitmap(size, share, seed):
    where = np.flatnonzero(np.random.default_rng(seed).random(size) < share)
    data = write_positions(where, size)
    np.testing.assert_array_equal(read_positions(data, size), where)
    assert len(data) <= 9 + (size + 7) // 8 + 1


def test_positions_cost_nearly_their_entropy():
    rng, size = np.random.default_rng(0), 1_000_000
    for share in (0.001, 0.01, 0.1):
        where = np.flatnonzero(rng.random(size) < share)
        entropy = -(share * np.log2(share) + (1 - share) * np.log2(1 - share)) * size / 8
        assert len(write_positions(where, size)) < 1.05 * entropy + 20


@pytest.mark.parametrize("spec", LOSSLESS + LOSSY)
def test_a_codec_is_rebuilt_from_its_stype(spec):
    codec = parse(spec)
    assert parse(codec.spec) == codec
    assert codec.stype == f"flower_hpc:{codec.spec}"


def test_stages_join_with_shift_operators():
    codec = TopK(0.01) >> Int8() >> Zstd()
    assert codec == parse(" topk(ratio=0.01) >> int8 >> zstd(level=3) ")
    assert codec.spec == "topk(0.01,model)>>int8(1024,nearest)>>zstd(3)"
    assert (parse("shuffle>>zstd").lossless, codec.lossless, codec.unbiased) == (True, False, False)
    assert parse("randomk(0.1,0,true)>>int8(64,stochastic)").unbiased


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("int9", "codec 'int9' is unknown, known are identity, raw"),
        ("", "codec '' is unknown"),
        ("topk(0)", r"ratio must be in \(0, 1\], got 0"),
        ("topk(0.1, layer)", "scope must be one of model, array, got 'layer'"),
        ("topk(k=3)", "codec 'topk\\(k=3\\)': it got an unexpected keyword argument 'k'"),
        ("int8(4)", r"bucket must be a whole number in \[8, 1048576\], got 4"),
        ("int8(1024, up)", "rounding must be one of nearest, stochastic, got 'up'"),
        ("zstd(99)", r"level must be a whole number in \[1, 22\], got 99"),
        ("zstd >> int8", "must be .sparsifier. >> .value codec. >> .byte codecs., each once, got zstd"),
        ("int8 >> int4", "a codec must be"),
        ("topk >> topk", "a codec must be"),
        ("identity >> zstd", "a codec must be made of codecs other than identity"),
        ("int8" + " >> zstd" * 4, "at most 4 stages, got 5"),
        ("zstd >> zstd", "each once, got zstd"),
        ("topk(ratio=0.1, ratio=0.2)", "ratio is given twice"),
        ("error_bounded(-1)", "tolerance must be a number > 0, got -1"),
        ("randomk(0.1, -1)", r"seed must be a whole number in \[0, 2\^63\), got -1"),
        ("__import__('os')", "is unknown"),
        ("x" * 300, "at most 200 characters"),
    ],
)
def test_bad_texts_are_one_clear_line(text, words):
    with pytest.raises(ConfigError, match=words) as error:
        parse(text)
    assert "\n" not in str(error.value)


def test_what_a_codec_cannot_write_travels_exactly():
    for x in (
        np.arange(5000),
        noise((5000,)) + 1j,
        np.full(5000, np.nan, np.float32),
        np.array([True] * 9),
        np.array("word"),
    ):
        assert pack(Int8(), x).stype == "numpy.ndarray"
    for spec in ("float16", "int8", "topk(0.5)>>float16"):
        x = np.full(5000, 1e200 if spec == "int8" else 1e6)
        np.testing.assert_array_equal(unpack(pack(parse(spec), x)), x)
    for spec in LOSSY:
        for dtype in DTYPES:
            ends = np.full(5000, ml_dtypes.finfo(dtype).max, dtype)
            ends[1::2] *= -1
            assert np.isfinite(values_of(unpack(pack(parse(spec), ends))).astype(np.float64)).all()
    assert pack(Identity(), noise()).stype == "numpy.ndarray"
    bf16 = noise((30, 3), ml_dtypes.bfloat16)
    np.testing.assert_array_equal(unpack(pack(Identity(), bf16)), bf16)


def test_tensors_of_bfloat16_travel():
    torch = pytest.importorskip("torch")
    tensor = torch.randn(40, 50, dtype=torch.bfloat16)
    x = tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(dense(unpack(pack(parse("shuffle(2)>>zstd"), x))), x)
    y = torch.from_numpy(dense(unpack(pack(parse("int8"), x))).view(np.uint16)).view(torch.bfloat16)
    assert (y - tensor).abs().max() <= tensor.abs().max() / 60


def test_torch_and_numpy_round_alike():
    pytest.importorskip("torch")
    x = noise((9999,)) * np.float32(10) ** np.random.default_rng(1).integers(-9, 6, 9999).astype(np.float32)
    frozen = x.copy()
    frozen.flags.writeable = False  # which torch does not take
    assert parse("float16").encode(x) == parse("float16").encode(frozen)


@pytest.mark.parametrize("case", FIXTURES, ids=lambda c: f"{c['stype'].partition(':')[2]}-{c['dtype']}")
def test_bytes_of_earlier_releases_decode_for_ever(case):
    shape, dtype = tuple(case["shape"]), np.dtype(case["dtype"])
    array = Array(case["dtype"], shape, case["stype"], b64decode(case["data"]))
    expected = np.frombuffer(b64decode(case["expected"]), dtype).reshape(shape)
    np.testing.assert_array_equal(dense(unpack(array)), expected)


def test_there_are_fixtures_of_every_codec():
    seen = {name for case in FIXTURES for name in CODECS if name in case["stype"]}
    assert seen == CODECS.keys() - {"identity"}


def test_a_chain_is_made_of_stages():
    with pytest.raises(ConfigError, match="a codec must be made of codecs"):
        Chain((Identity(), Zstd()))
    with pytest.raises(TypeError):
        Zstd() >> "int8"
