"""Compression of updates: bytes on the wire, speed on one core, and accuracy with and without error feedback.

bytes     The update of a really trained CIFAR-10 ResNet-18 (44.7 MB), through our codecs and through others':
          the bytes of all requests by which a SuperNode pushes the reply, framing included (HTTP's headers
          and TLS are not), and the time of the whole update against a plain copy of it.
speed     The codecs on single arrays against ``x.copy()`` of the same array, and the server's running mean of
          sparse updates against dense ones.
accuracy  CIFAR-10 on 20 nodes of three classes each, really trained, all of them in each round. Accuracy is
          the mean over the last five rounds, on 5000 test images (on 500 before). A setting that the JSON
          file has already is not run again, so that a run that was cut goes on.

    export FLOWER_HPC_DATA=<folder with cifar10/> OMP_NUM_THREADS=1
    nice uv run --with blosc2 --with zfpy python benchmarks/compression.py [--only bytes|speed|accuracy]
    nice uv run python benchmarks/compression.py --only accuracy --rounds 15 --settings int8 --seeds 0

One thread: the machine's other cores are other people's. Several runs may share one JSON file.
"""

import argparse
import logging
from pathlib import Path

import torch
from compressing.accuracy import SETTINGS, TRIALS, Plan, compare, show_accuracy
from compressing.plot import draw
from compressing.results import Results
from compressing.speed import measure_speed, show_speed
from compressing.wire import measure_bytes, show_bytes

RESULTS = Path(__file__).parent / "results"
SECTIONS = ("bytes", "speed", "accuracy")


def main() -> None:
    """Measure the sections asked for, keep their figures in the JSON file and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=SECTIONS, action="append", help="may be repeated; default: all")
    parser.add_argument("--json", type=Path, default=RESULTS / "compression.json", metavar="FILE")
    parser.add_argument("--show", action="store_true", help="print what FILE has, measure nothing")
    parser.add_argument("--rounds", type=int, default=Plan.rounds, help="of a setting (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=Plan.steps, help="of a node (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=Plan.batch_size, help="(default: %(default)s)")
    parser.add_argument("--classes", type=int, default=Plan.classes, help="of a node (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=Plan.lr, help="of the nodes (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1])
    parser.add_argument(
        "--settings", nargs="*", choices=[*SETTINGS, *TRIALS], default=list(SETTINGS), metavar="NAME",
        help=f"of {'; '.join([*SETTINGS, *TRIALS])}",
    )  # fmt: skip
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    results, plan = Results(args.json), Plan(args.rounds, args.steps, args.lr, args.batch, args.classes)
    sections = args.only or SECTIONS
    if "bytes" in sections:
        if not args.show:
            results.put("bytes", measure_bytes())
        show_bytes(results.get("bytes"))
    if "speed" in sections:
        if not args.show:
            results.put("speed", measure_speed())
        show_speed(results.get("speed"))
    if "accuracy" in sections:
        if not args.show:
            compare(results, plan, args.settings, args.seeds)
        show_accuracy(plan, results.get("accuracy"))
        draw([run for run in results.get("accuracy") if plan.made(run)], args.json.with_suffix(".svg"))


if __name__ == "__main__":
    main()
