"""The server: an initial model, any strategy, and the central test set after each round."""

from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp

from flower_hpc.strategies import configured
from flower_hpc.tasks import TaskOptions, load, training

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
    strategy = configured(context)
    test, model = task.load_test(), task.build_model()

    def central(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        model.load_state_dict(arrays.to_torch_state_dict(), strict=True)
        metrics = training.evaluate(model, test, task.objective)
        return MetricRecord({k: metrics[k] for k in ("accuracy", "loss")})

    strategy.start(
        grid,
        initial_arrays=ArrayRecord(model.state_dict()),
        num_rounds=options.num_rounds,
        train_config=ConfigRecord({"lr": options.learning_rate}),
        evaluate_fn=central,
    )
