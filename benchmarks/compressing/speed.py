"""Section ``speed``: codecs against a plain copy, and the server's mean of sparse against dense updates."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import numpy as np
from flwr.app import ArrayRecord

from flower_hpc.compression import Compression, parse
from flower_hpc.compression.update import decode, encode_update
from flower_hpc.mean import StreamingMean
from flower_hpc.records import NDArray, Update, Weights, to_record, to_weights

from .measure import best, trained_update
from .results import say

SPECS = (
    "float16", "bfloat16", "int8", "int8(rounding=stochastic)", "int4", "topk(0.1)", "topk(0.01)",
    "topk(0.01) >> int8", "randomk(0.01)", "error_bounded(0.01)", "zstd", "shuffle >> zstd",
)  # fmt: skip
BARS = {"float16": 0.3, "float16, no torch": 0.3, "int8": 0.15, "topk(0.1)": 0.05, "topk(0.01)": 0.05}
SPARSE, SPARSE_BAR = "topk(0.01) >> int8", 10.0
ROUNDS = 9


def measure_speed() -> list[dict[str, Any]]:
    """Rows of codecs on a large and on a middling array, then of the server's mean."""
    update = trained_update()
    floats = [x.reshape(-1) for x in update.values() if x.dtype == np.float32]
    rows = []
    for x in (np.concatenate(floats), max(floats, key=len)):
        for spec in SPECS:
            say(f"{spec}, {x.nbytes / 1e6:.1f} MB")
            rows.append(codec_row(spec, spec, x))
        with without("torch"):
            rows.append(codec_row("float16, no torch", "float16", x))
    return [*rows, *mean_rows(update)]


def codec_row(name: str, spec: str, x: NDArray) -> dict[str, Any]:
    """One codec on one array."""
    codec = parse(spec)
    data = codec.encode(x)
    # copies before and after: the machine's mood changes
    copies = [best(x.copy)]
    encode_s, decode_s = best(lambda: codec.encode(x)), best(lambda: codec.decode(data, x.shape, x.dtype))
    copy_s = min([*copies, best(x.copy)])
    return {
        "name": name,
        "mb": round(x.nbytes / 1e6, 1),
        "copy_gb_s": round(x.nbytes / copy_s / 1e9, 3),
        "encode_gb_s": round(x.nbytes / encode_s / 1e9, 3),
        "decode_gb_s": round(x.nbytes / decode_s / 1e9, 3),
        "encode_of_copy": round(copy_s / encode_s, 4),
        "decode_of_copy": round(copy_s / decode_s, 4),
    }


@contextmanager
def without(name: str) -> Iterator[None]:
    """As if a module had not been imported, for those who look whether it has."""
    held = sys.modules.pop(name)
    try:
        yield
    finally:
        sys.modules[name] = held


def mean_rows(update: Weights) -> list[dict[str, Any]]:
    """The server's work for a reply: added alone, and read from its bytes first."""
    how = Compression(up=SPARSE)  # type: ignore[arg-type]  # texts are read there
    records = {"dense": to_record(update), "sparse": encode_update(update, how)}
    rows = [mean_row(name, update, record) for name, record in records.items()]
    for row in rows:
        for key in ("add", "read_and_add"):
            row[f"{key}_faster"] = round(rows[0][f"{key}_ms"] / row[f"{key}_ms"], 2)
    return rows


def mean_row(name: str, update: Weights, record: ArrayRecord) -> dict[str, Any]:
    """One form of a reply, many times."""
    mean, added, read_s = StreamingMean(), [], []
    mean.add(update, 1.0, is_update=True)  # the first makes the sum

    def read() -> Update:
        return to_weights(record) if name == "dense" else decode(record)

    def add(found: Update) -> None:
        mean.add(found, 1.0, is_update=True)

    found = read()
    for _ in range(ROUNDS):
        added.append(best(lambda: add(found), 1))
        read_s.append(best(lambda: add(read()), 1))
    times = {"add_ms": 1e3 * median(added), "read_and_add_ms": 1e3 * median(read_s)}
    return {"name": f"mean, {name}"} | {key: round(ms, 3) for key, ms in times.items()}


def show_speed(rows: list[dict[str, Any]]) -> None:
    """Print the tables, and whether the bars are met."""
    codecs, means = [r for r in rows if "mb" in r], [r for r in rows if "mb" not in r]
    if not rows:
        return
    for size in dict.fromkeys(r["mb"] for r in codecs):
        print(f"\nCodecs on one float32 array of {size} MB, one core; a plain copy is 1")
        print(
            f"{'':29}{'copy GB/s':>10}{'encode GB/s':>13}{'of copy':>9}"
            f"{'decode GB/s':>13}{'of copy':>9}{'bar':>14}"
        )
        for r in (r for r in codecs if r["mb"] == size):
            bar = BARS.get(r["name"])
            verdict = "" if bar is None else f"{bar:g} {'met' if r['encode_of_copy'] >= bar else 'MISSED'}"
            print(
                f"{r['name']:29}{r['copy_gb_s']:>10.2f}{r['encode_gb_s']:>13.3f}{r['encode_of_copy']:>9.3f}"
                f"{r['decode_gb_s']:>13.3f}{r['decode_of_copy']:>9.3f}{verdict:>14}"
            )
    print(f"\nThe server's running mean of a ResNet-18, a reply; sparse is {SPARSE}")
    print(f"{'':29}{'add ms':>10}{'faster':>9}{'read and add ms':>17}{'faster':>9}")
    for r in means:
        print(
            f"{r['name']:29}{r['add_ms']:>10.2f}{r['add_faster']:>8.1f}x{r['read_and_add_ms']:>17.2f}"
            f"{r['read_and_add_faster']:>8.1f}x"
        )
    faster = means[-1]["add_faster"]
    verdict = "met" if faster >= SPARSE_BAR else "MISSED"
    print(f"bar: sparse at least {SPARSE_BAR:g}x faster: {faster:.1f}x, {verdict}")
