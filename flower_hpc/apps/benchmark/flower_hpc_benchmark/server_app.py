"""The server: an initial model, any strategy, and the central test set after each round."""

from dataclasses import replace

from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, Strategy

from flower_hpc.records import to_record, to_weights
from flower_hpc.strategies import HybridStrategy, configured, recorded
from flower_hpc.tasks import TaskOptions, load

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train the run config's task with the run config's strategy.

    Raises
    ------
    ConfigError
        A value that cannot work, before any node is asked; it ends the run with its one line.
    """
    options = TaskOptions.from_config(context.run_config)
    task = load(options)
    strategy = evaluating(configured(context), options.fraction_evaluate)
    with recorded(strategy):
        test, model = task.load_test(), task.build_model()

    def central(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        task.set_weights(model, to_weights(arrays))
        metrics = task.evaluate(model, test)
        return MetricRecord({k: metrics[k] for k in ("accuracy", "loss")})

    strategy.start(
        grid,
        initial_arrays=to_record(task.weights(model)),
        num_rounds=options.num_rounds,
        train_config=ConfigRecord({"lr": options.learning_rate}),
        evaluate_fn=central,
    )


def evaluating(strategy: Strategy, fraction: float) -> Strategy:
    """The strategy with that part of the nodes evaluating; one that knows no such part is left as it is."""
    if isinstance(strategy, HybridStrategy):
        strategy.settings = replace(strategy.settings, fraction_evaluate=fraction)
        if strategy.settings.inner is not None:
            evaluating(strategy.settings.inner, fraction)
    elif isinstance(strategy, FedAvg):
        strategy.fraction_evaluate = fraction
    return strategy
