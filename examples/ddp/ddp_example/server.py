"""The server: any strategy; it cannot tell how many processes a node's reply comes from."""

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp

from ddp_example.model import build
from flower_hpc.strategies import configured

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, and print the loss of each round."""
    rounds = int(context.run_config["num-rounds"])
    result = configured(context).start(grid, ArrayRecord(build().state_dict()), num_rounds=rounds)
    for number, metrics in sorted(result.evaluate_metrics_clientapp.items()):
        print(f"round {number}: loss {metrics['loss']:.3f}")
