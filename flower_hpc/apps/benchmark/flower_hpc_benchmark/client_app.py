"""The client: trains or evaluates a task's model on this node's partition, answers with full weights."""

import math
import time

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict

from flower_hpc.client import AsSite, Control, KeepBudget, Offload, ProfiledApp, budget_of, effective_steps
from flower_hpc.compression import CompressUpdates
from flower_hpc.errors import ConfigError
from flower_hpc.protocol import (
    ARRAYS,
    EFFECTIVE_STEPS,
    METRICS,
    NUM_EXAMPLES,
    NUM_PARTITIONS,
    NUM_STEPS,
    PARTITION_ID,
    PROXIMAL_MU,
    SERVER_ROUND,
    TRAIN_S,
    WANT_VARIANCE,
    WIDTH,
    config_of,
)
from flower_hpc.records import Weights, to_record, to_weights
from flower_hpc.tasks import TaskOptions, Training, load, seed_of
from flower_hpc.tasks.sgd import EXAMPLES_SEEN, MOMENTUM

DATA_DIR, SLOWDOWN = "data-dir", "slowdown"  # in node-config

app = ProfiledApp(mods=[CompressUpdates(), AsSite(), KeepBudget(), Offload()])
_first = True


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the model that came in on this node's partition, within the message's budget.

    Replies with ``arrays`` (full weights) and ``metrics``: ``num-examples`` (of the partition),
    ``train-loss``, ``train-loss-rms``, ``num-steps``, ``effective-steps``, ``train-s`` and, where asked for,
    ``gradient-variance``; with SCAFFOLD also with the change of the control variate.
    """
    started, budget, config = _clock(), budget_of(message), config_of(message)
    options, index, count = _options(context), *_place(context)
    task, received = load(options), _weights(message)
    examples = task.load_partition(index, count)
    model = task.build_model(_number(config.get(WIDTH), 1.0))
    task.set_weights(model, received)
    control = Control.of(message, context)
    lr = _number(config.get("lr"), options.learning_rate) * budget.lr_factor
    training = Training(
        lr=lr,
        batch_size=options.batch_size,
        steps=budget.steps(math.ceil(len(examples) / options.batch_size) * options.local_epochs),
        seed=seed_of(options.seed, int(_number(config.get(SERVER_ROUND), 0)), index),
        proximal_mu=_number(config.get(PROXIMAL_MU), 0.0),
        correction=control.correction if control else None,
        variance=config.get(WANT_VARIANCE) is True,
    )
    began = time.perf_counter()
    metrics = task.train(model, examples, training, budget.spent)
    _be_slow(context, started)
    del metrics[EXAMPLES_SEEN]  # what counts for the server is the partition
    metrics[TRAIN_S] = time.perf_counter() - began
    metrics[EFFECTIVE_STEPS] = effective_steps(int(metrics[NUM_STEPS]), MOMENTUM)
    trained = task.weights(model)
    reply = _reply(message, {ARRAYS: to_record(trained)}, len(examples), metrics)
    if control:
        control.update(received, trained, lr, metrics[EFFECTIVE_STEPS])
        control.attach(reply)
    return reply


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the model that came in on the partition that this node trains on.

    The partition itself, not a held-out part of it: nodes may hold a handful of examples, and the
    central test set is what measures generalisation.
    """
    started = _clock()
    task = load(_options(context))
    examples, model = task.load_partition(*_place(context)), task.build_model()
    task.set_weights(model, _weights(message))
    metrics = task.evaluate(model, examples)
    _be_slow(context, started)
    return _reply(message, {}, len(examples), {k: metrics[k] for k in ("loss", "accuracy")})


def _options(context: Context) -> TaskOptions:
    own = context.node_config.get(DATA_DIR)
    config = dict(context.run_config)
    return TaskOptions.from_config({**config, DATA_DIR: str(own)} if own else config)


def _place(context: Context) -> tuple[int, int]:
    try:
        return int(context.node_config[PARTITION_ID]), int(context.node_config[NUM_PARTITIONS])
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"node-config must give {PARTITION_ID} and {NUM_PARTITIONS} as whole numbers, "
            f"got {dict(context.node_config)}"
        ) from error


def _weights(message: Message) -> Weights:
    # the only record, whatever it is called: strategies of others may use another key
    return to_weights(next(iter(message.content.array_records.values())))


def _number(value: object, default: float) -> float:
    return float(value) if isinstance(value, int | float) else default


def _clock() -> tuple[float, float]:
    """When this message's work began, on the wall and in processor time.

    Flower starts a process per message: all that it has done so far belongs to its first one.
    """
    global _first
    first, _first = _first, False
    used = time.process_time()
    return (time.perf_counter() - used, 0.0) if first else (time.perf_counter(), used)


def _be_slow(context: Context, started: tuple[float, float]) -> None:
    """Behave like a node that is ``slowdown`` times slower, by sleeping what it would take longer.

    Counted from the time that the work takes on a machine of its own: waiting for processors that other nodes
    of this machine use is not multiplied.
    """
    value = context.node_config.get(SLOWDOWN, 1)
    slowdown = _number(value, 0.0)
    if slowdown < 1:
        raise ConfigError(f"slowdown in node-config must be a number >= 1, got {value!r}")
    taken = min(time.perf_counter() - started[0], time.process_time() - started[1])
    time.sleep((slowdown - 1) * taken)


def _reply(
    message: Message, content: dict[str, ArrayRecord], examples: int, metrics: dict[str, float]
) -> Message:
    record = MetricRecord({NUM_EXAMPLES: examples, **metrics})
    return Message(RecordDict({**content, METRICS: record}), reply_to=message)
