"""Peak memory of the server for the replies of a round: stock FedAvg beside HybridStrategy.

Each strategy runs one round in a process of its own, with the same pretended nodes, whose replies come into
being when they are pulled, as those of a SuperLink do. Growth is the process's peak resident size less what
it was just before the round.

    uv run python benchmarks/memory.py [--json] [--nodes 32] [--megabytes 40]
"""

import argparse
import json
import resource
import subprocess
import sys

SIDES = ("stock", "ours")


def main() -> None:
    """Measure both sides, print a table and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=32, help="replies in the round (default: 32)")
    parser.add_argument("--megabytes", type=int, default=40, help="size of the model, MB (default: 40)")
    parser.add_argument("--arrays", type=int, default=1, help="arrays it is cut into (default: 1, the worst)")
    parser.add_argument("--json", action="store_true", help="print the JSON object alone")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(one_round(args.side, args.nodes, args.megabytes, args.arrays)))
        return
    grown = {side: measured(side) for side in SIDES}
    ratio = grown["ours"]["growth_mb"] / grown["stock"]["growth_mb"]
    result = {"nodes": args.nodes, "megabytes": args.megabytes, "arrays": args.arrays}
    result |= grown | {"ratio": round(ratio, 4)}
    if not args.json:
        print(f"{args.nodes} replies of a {args.megabytes} MB model in {args.arrays} arrays")
        for side in SIDES:
            before, growth = grown[side]["before_mb"], grown[side]["growth_mb"]
            print(f"  {side:6} before {before:7.0f} MB, growth {growth:7.0f} MB")
        print(f"  ours / stock: {ratio:.3f}")
    print(json.dumps(result))


def measured(side: str) -> dict[str, float]:
    """Run one side in a fresh process."""
    command = [sys.executable, *sys.argv, "--side", side]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(out.splitlines()[-1])


def one_round(side: str, nodes: int, megabytes: int, arrays: int) -> dict[str, float]:
    """One round of one strategy in this process."""
    import logging

    import numpy as np
    from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp.strategy import FedAvg

    from flower_hpc.clock import WALL
    from flower_hpc.strategies import HybridStrategy
    from flower_hpc.transport import InProcessGrid, InProcessNode

    logging.getLogger("flwr").setLevel(logging.ERROR)
    app = ClientApp()

    @app.train()
    def train(msg, context):
        record = ArrayRecord({k: Array(a.numpy() + 1) for k, a in msg.content["arrays"].items()})
        return Message(
            RecordDict({"arrays": record, "metrics": MetricRecord({"num-examples": 1})}), reply_to=msg
        )

    size = megabytes * 10**6 // 4 // arrays
    model = ArrayRecord({f"a{i}": Array(np.zeros(size, np.float32)) for i in range(arrays)})
    grid = InProcessGrid(app, [InProcessNode(f"n{i}", delay_s=0) for i in range(nodes)], clock=WALL)
    strategy = FedAvg(fraction_evaluate=0.0) if side == "stock" else HybridStrategy(fraction_evaluate=0.0)
    before = peak_mb()
    result = strategy.start(grid, model, num_rounds=1)
    assert float(next(iter(result.arrays.values())).numpy()[-1]) == 1.0
    return {"before_mb": round(before, 1), "growth_mb": round(peak_mb() - before, 1)}


def peak_mb() -> float:
    """Peak resident size of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


if __name__ == "__main__":
    main()
