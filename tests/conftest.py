"""Shared by the tests: small ClientApps whose replies are known in advance, and where real data lies."""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flower_hpc.cli import main
from flower_hpc.protocol import DATA_ENV, PARTITION_ID
from flower_hpc.records import to_record, to_weights
from flower_hpc.transport import InProcessGrid, InProcessNode
from processes import BIN, left_of

# ignored by a shell's `&`, and then by the jobs that it should end
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ReplyOf = Callable[[int, dict[str, np.ndarray]], tuple[Mapping[str, np.ndarray], dict]]


def make_app(reply_of: ReplyOf, mods=()) -> ClientApp:
    """A ClientApp that answers with ``reply_of(partition, received) -> (arrays, metrics)``."""
    app = ClientApp(mods=list(mods))

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        received = to_weights(next(iter(msg.content.array_records.values())))
        arrays, metrics = reply_of(int(context.node_config[PARTITION_ID]), received)
        content = RecordDict({"arrays": to_record(arrays), "metrics": MetricRecord(metrics)})
        return Message(content, reply_to=msg)

    @app.evaluate()
    def evaluate(msg: Message, context: Context) -> Message:
        metrics = MetricRecord({"num-examples": 1, "loss": float(context.node_config[PARTITION_ID])})
        return Message(RecordDict({"metrics": metrics}), reply_to=msg)

    return app


def stepping(targets, step=1.0) -> ReplyOf:
    """Each node steps a single array ``w`` towards its own target."""

    def reply_of(partition, received):
        w = received["w"]
        return {"w": np.asarray(w + step * (targets[partition] - w), w.dtype)}, {"num-examples": 1}

    return reply_of


def weights(value=0.0, dtype=np.float64) -> ArrayRecord:
    """A model of one array ``w`` with three elements."""
    return to_record({"w": np.full(3, value, dtype)})


def grid_of(reply_of, nodes, mods=(), **options) -> InProcessGrid:
    """An InProcessGrid of a number of nodes, or of delays by node."""
    if isinstance(nodes, list) and not isinstance(nodes[0], InProcessNode):
        nodes = [InProcessNode(f"n{i}", delay_s=delay) for i, delay in enumerate(nodes)]
    return InProcessGrid(make_app(reply_of, mods), nodes, **options)


@pytest.fixture
def data_dir() -> Path:
    """The folder with real data; without it the test is skipped."""
    folder = os.environ.get(DATA_ENV)
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"needs real data: set {DATA_ENV} to the folder that holds cifar10/, shakespeare/, ...")
    return Path(folder)


@pytest.fixture
def flower_hpc(tmp_path, monkeypatch, capsys):
    """Call the command line in an empty folder; returns (exit code, standard output, standard error)."""
    monkeypatch.setenv("FLOWER_HPC_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # the handlers are this process's, not the test's

    def call(*args):
        monkeypatch.setattr("sys.argv", ["flower-hpc", *map(str, args)])
        with pytest.raises(SystemExit) as caught:
            main()
        return caught.value.code, *capsys.readouterr()

    return call


@pytest.fixture
def shell(tmp_path):
    """Run a program of ours in an empty folder; returns the finished process."""
    env = os.environ | {"FLOWER_HPC_HOME": str(tmp_path / "home"), "FLWR_TELEMETRY_ENABLED": "0"}

    def run(*command, **more):
        return subprocess.run(
            [str(BIN / command[0]), *map(str, command[1:])],
            cwd=tmp_path,
            env=env | more,
            capture_output=True,
            text=True,
            check=False,
            timeout=500,
        )

    yield run
    run("flower-hpc", "down")
    assert not left_of(tmp_path)
