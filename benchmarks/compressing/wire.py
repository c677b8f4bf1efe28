"""Section ``bytes``: a ResNet-18's update on the wire, through our codecs and others'."""

from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import ArrayRecord

from flower_hpc.compression import Compression
from flower_hpc.compression.update import decode, encode_update
from flower_hpc.records import NDArray, Weights, densify

from .measure import best, reply_of, trained_update, wire_bytes
from .peers import Peer, peers
from .results import say

OURS = (
    "float16",
    "bfloat16",
    "int8",
    "int4",
    "int8 >> zstd",
    "int4 >> zstd",
    "zstd",
    "shuffle >> zstd",
    "float16 >> shuffle(2) >> zstd",
    "error_bounded(0.01)",
    "error_bounded(0.001)",
    "randomk(0.01)",
    "topk(0.1)",
    "topk(0.1) >> int8",
    "topk(0.1) >> int4",
    "topk(0.1) >> int4 >> zstd",
    "topk(0.05) >> int8",
    "topk(0.01) >> int8",
    "topk(0.01) >> int8 >> zstd",
    "topk(0.01) >> int4",
    "topk(0.001) >> int8",
)
BARS = {"topk(0.1) >> int8": 15.0, "topk(0.01) >> int8": 60.0}
PAPER_MB = (433.0, 144.0)  # its table 4: a client's rounds 1 to 10
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def measure_bytes() -> list[dict[str, Any]]:
    """A row a codec; the first is Flower's own way, the last the paper's."""
    update, rows = trained_update(), []
    for name, peer in peers().items():
        if peer is None:
            rows.append({"name": name, "installed": False})
            continue
        say(name)

        def back(record: ArrayRecord, peer: Peer = peer) -> Weights:
            return peer.decode(record, update)

        rows.append(measured(name, update, peer.encode, back, rows))
    for spec in OURS:
        say(spec)
        how = Compression(up=spec)  # type: ignore[arg-type]  # texts are read there

        def encode(update: Weights, how: Compression = how) -> ArrayRecord:
            return encode_update(update, how)

        rows.append(measured(spec, update, encode, decode, rows) | {"ours": True})
    before, after = PAPER_MB
    return [*rows, {"name": "paper, table 4, ten rounds", "mb": after, "ratio": round(before / after, 2)}]


def measured(
    name: str,
    update: Weights,
    encode: Callable[[Weights], ArrayRecord],
    back: Callable[[ArrayRecord], Any],
    rows: list[dict[str, Any]],
) -> dict[str, Any]:
    """One row."""
    record = encode(update)
    size, payload = wire_bytes(reply_of(record)), sum(len(array.data) for array in record.values())
    total = sum(x.nbytes for x in update.values())
    copy_s = best(lambda: {k: x.copy() for k, x in update.items()})
    encode_s, decode_s = best(lambda: encode(update), 3), best(lambda: back(record), 3)
    return {
        "name": name,
        "mb": round(size / 1e6, 4),
        "payload_mb": round(payload / 1e6, 4),
        "ratio": round((rows[0]["mb"] * 1e6 if rows else size) / size, 2),
        "encode_gb_s": round(total / encode_s / 1e9, 3),
        "decode_gb_s": round(total / decode_s / 1e9, 3),
        "encode_of_copy": round(copy_s / encode_s, 4),
        "decode_of_copy": round(copy_s / decode_s, 4),
        "error": float(f"{error(update, densify(back(record))):.3g}"),
    }


def error(update: Weights, arrived: Weights) -> float:
    """``||y - x|| / ||x||`` over what is learnt: norms' statistics travel exactly and are large."""
    learnt = [k for k in update if k.rpartition(".")[2] not in STATISTICS]
    return norm([arrived[k] - update[k] for k in learnt]) / norm([update[k] for k in learnt])


def norm(arrays: list[NDArray]) -> float:
    """Euclidean, in float64."""
    return float(np.sqrt(sum(np.square(x, dtype=np.float64).sum() for x in arrays)))


def show_bytes(rows: list[dict[str, Any]]) -> None:
    """Print the table, and whether the bars are met."""
    if not rows:
        return
    print("\nA ResNet-18's update on the wire: 16 steps of a CIFAR-10 node with two classes")
    print(
        f"{'':38}{'MB':>8}{'ratio':>9}{'encode GB/s':>13}{'of copy':>9}"
        f"{'decode GB/s':>13}{'of copy':>9}{'error':>9}"
    )
    for r in rows:
        if not r.get("installed", True):
            print(f"{r['name']:38}   not installed")
        elif "error" not in r:
            print(f"{r['name']:38}{r['mb']:>8.3f}{r['ratio']:>8.1f}x")
        else:
            print(
                f"{r['name']:38}{r['mb']:>8.3f}{r['ratio']:>8.1f}x{r['encode_gb_s']:>13.3f}"
                f"{r['encode_of_copy']:>9.3f}{r['decode_gb_s']:>13.3f}{r['decode_of_copy']:>9.3f}{r['error']:>9.2g}"
            )
    ratios = {r["name"]: r["ratio"] for r in rows if "ratio" in r}
    for name, bar in BARS.items():
        verdict = "met" if ratios[name] >= bar else "MISSED"
        print(f"bar: {name} at least {bar:g}x on the wire: {ratios[name]:.1f}x, {verdict}")
