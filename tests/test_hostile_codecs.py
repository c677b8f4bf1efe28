"""Whatever a node sends in place of a codec's bytes is refused, before it costs anything."""

import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
import zstandard
from flwr.app import Array
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_hpc.compression import CODECS, Identity, Int8, TopK, pack, parse, unpack
from flower_hpc.errors import ReplyError
from flower_hpc.records import Sparse, dense
from test_codecs import LOSSLESS, LOSSY, noise


@pytest.mark.parametrize("spec", LOSSLESS + LOSSY)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_hostile_bytes_are_refused_or_give_an_array_of_the_declared_shape(spec, data):
    codec, x = parse(spec), noise((300,))
    good = bytearray(codec.encode(x))
    how = data.draw(st.sampled_from(["flip", "cut", "grow", "any"]))
    if how == "flip":
        for _ in range(data.draw(st.integers(1, 8))):
            good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    elif how == "cut":
        del good[data.draw(st.integers(0, len(good) - 1)) :]
    elif how == "grow":
        good += data.draw(st.binary(min_size=1, max_size=64))
    else:
        good = bytearray(data.draw(st.binary(max_size=400)))
    with suppress(ReplyError):
        found = codec.decode(bytes(good), x.shape, x.dtype)
        assert dense(found).shape == x.shape
        if isinstance(found, Sparse) and len(found.positions):
            assert 0 <= found.positions[0] <= found.positions[-1] < x.size


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60), st.binary(max_size=60))
def test_hostile_names_are_refused(name, data):
    for stype in (name, f"flower_hpc:{name}"):
        if stype not in ("numpy.ndarray", *(f"flower_hpc:{c}" for c in CODECS)):
            with pytest.raises(ReplyError):
                unpack(Array("float32", (30,), stype, data))


def test_a_bomb_is_refused_before_memory_is_taken():
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(300_000_000))
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(4000))
    tracemalloc.start()
    for spec in ("zstd", "int8>>zstd", "topk(0.1)>>zstd", "topk(0.1)>>int4>>shuffle>>zstd"):
        with pytest.raises(ReplyError, match="zstd: "):
            parse(spec).decode(bomb, (1000,), np.dtype(np.float32))
    with pytest.raises(ReplyError, match="zstd: "):
        parse("zstd").decode(unsized, (1000,), np.dtype(np.float32))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_codecs_that_are_not_allowed_are_refused():
    array = pack(TopK(0.1) >> Int8(), noise())
    assert unpack(array, ["topk", "int8"]).shape == (5000,)
    with pytest.raises(ReplyError, match="codec topk is not allowed, allowed are int8"):
        unpack(array, ["int8"])
    assert unpack(pack(Identity(), noise()), ["int8"]).shape == (5000,)
