"""The benchmark app: learns with our strategies and Flower's, says no before a run, is a valid Flower App."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from importlib import import_module

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.cli.build import build_fab_from_disk

from flower_hpc import apps, protocol
from flower_hpc.client import effective_steps
from flower_hpc.errors import ConfigError
from flower_hpc.records import from_bytes, to_bytes, to_record, to_weights
from flower_hpc.strategies import configured
from flower_hpc.tasks import TaskOptions, load
from flower_hpc.transport import InProcessGrid, InProcessNode

APP = apps.path("benchmark")
PROJECT = tomllib.loads((APP / "pyproject.toml").read_text())
DEFAULTS = PROJECT["tool"]["flwr"]["app"]["config"]


@pytest.fixture(scope="module", autouse=True)
def _installed(tmp_path_factory):
    # the app's folder is on the path, as Flower puts it there
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(APP))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.delenv(protocol.STATE_ENV, raising=False)
        yield


def module(name):
    return import_module(f"flower_hpc_benchmark.{name}")


def grid(nodes, run_config, **node_config):
    made = [InProcessNode(f"n{i}", node_config=node_config) for i in range(nodes)]
    return InProcessGrid(module("client_app").app, made, run_config=run_config)


def run(monkeypatch, nodes=3, **config):
    """Run the server app; return what its strategy's ``start`` returned."""
    run_config, results = DEFAULTS | config, []
    server = module("server_app")

    def kept(context):
        strategy = configured(context)
        start = strategy.start
        strategy.start = lambda *a, **k: results.append(start(*a, **k))
        return strategy

    monkeypatch.setattr(server, "configured", kept)
    server.app(grid(nodes, run_config), Context(1, 1, {}, RecordDict(), run_config))
    (result,) = results
    return result


def train(run_config=None, node_config=None, **message_config):
    """One train message through the client app; the reply."""
    run_config = DEFAULTS | (run_config or {})
    task = load(TaskOptions.from_config(run_config))
    federation = grid(1, run_config, **(node_config or {}))
    content = RecordDict(
        {"arrays": to_record(task.weights(task.build_model())), "config": ConfigRecord(message_config)}
    )
    federation.push_messages([message := Message(content, 1, "train")])
    federation.clock.sleep(2)
    (reply,) = federation.pull_messages([message.metadata.message_id])
    return reply, to_weights(content["arrays"])


@pytest.mark.parametrize("strategy", ["", "flower.FedAvg()", "fedprox(mu=0.1)", "flower.FedProx()"])
def test_three_nodes_learn_digits_under_any_strategy(strategy, monkeypatch):
    result = run(monkeypatch, strategy=strategy)
    accuracies = [result.evaluate_metrics_serverapp[r]["accuracy"] for r in range(4)]
    assert accuracies[0] < 0.3
    assert accuracies[3] > 0.8
    assert result.evaluate_metrics_clientapp == {}


@pytest.mark.parametrize("strategy", ["", "flower.FedAvg()"])
def test_nodes_evaluate_where_the_run_config_asks(strategy, monkeypatch):
    config = {"fraction-evaluate": 1.0, "num-rounds": 1, "strategy": strategy}
    result = run(monkeypatch, nodes=2, **config)
    assert {"accuracy", "loss"} <= set(result.evaluate_metrics_clientapp[1])


def test_our_loop_without_deadlines_is_flowers_fedavg(monkeypatch):
    ours = run(monkeypatch, nodes=2, **{"num-rounds": 1}).arrays
    stock = run(monkeypatch, nodes=2, strategy="flower.FedAvg()", **{"num-rounds": 1}).arrays
    for name, array in to_weights(ours).items():
        np.testing.assert_allclose(array, to_weights(stock)[name], rtol=1e-5, atol=1e-6)


def test_a_reply_holds_full_weights_and_counts_its_partition():
    reply, sent = train()
    received = to_weights(reply.content["arrays"])
    assert {k: x.shape for k, x in received.items()} == {k: x.shape for k, x in sent.items()}
    assert reply.content["metrics"]["num-examples"] == 1400
    assert reply.content["metrics"]["train-loss"] > 0
    assert list(reply.content) == ["arrays", "metrics"]


def test_a_reply_tells_what_was_done():
    metrics = train()[0].content["metrics"]
    assert metrics["num-steps"] == 44  # 1400 examples in batches of 32
    assert metrics["effective-steps"] == pytest.approx(effective_steps(44, 0.9))
    assert metrics["train-loss-rms"] >= metrics["train-loss"]
    assert metrics["train-s"] > 0
    told = {"num-examples", "train-loss", "train-loss-rms", "num-steps", "effective-steps", "train-s"}
    assert set(metrics) == told
    asked = train(**{protocol.WANT_VARIANCE: True})[0].content["metrics"]
    assert set(asked) == told | {"gradient-variance"}


@pytest.mark.parametrize(
    ("config", "steps"),
    [({protocol.LOCAL_STEPS: 3}, 3), ({protocol.MAX_STEPS: 7}, 7), ({protocol.MAX_STEPS: 99}, 44)],
)
def test_the_servers_steps_reach_the_nodes(config, steps):
    assert train(**config)[0].content["metrics"]["num-steps"] == steps


def test_a_control_variate_of_zeros_changes_no_weight_and_comes_back_as_the_mean_gradient():
    plain, sent = train(lr=0.02)
    zeros = {k: np.zeros_like(x) for k, x in sent.items()}
    reply, _ = train(lr=0.02, **{protocol.CONTROL: to_bytes(zeros)})
    trained = to_weights(reply.content["arrays"])
    change = from_bytes(reply.content[protocol.CONTROL][protocol.CONTROL], sent)
    scale = 0.02 * reply.content["metrics"]["effective-steps"]
    for name, x in to_weights(plain.content["arrays"]).items():
        assert np.array_equal(trained[name], x)
        np.testing.assert_allclose(change[name], (sent[name] - x) / scale, rtol=1e-5, atol=1e-7)


def test_the_app_reports_its_nodes_profile():
    config = {protocol.WANT_PROFILE: True, protocol.REPLY_AS: protocol.UPDATE, protocol.VERSION: 0}
    reply, _ = train(node_config={"site": "north"}, **config)
    assert reply.content[protocol.PROFILE]["label.site"] == "north"
    assert protocol.mark_of(reply).form == protocol.UPDATE


def test_digits_are_trained_without_torch():
    code = (
        "import sys, flower_hpc_benchmark.client_app;"
        "from flower_hpc.tasks import TaskOptions, Training, load;"
        "task = load(TaskOptions()); model = task.build_model();"
        "task.train(model, task.load_partition(0, 9), Training(lr=0.1)); print('torch' in sys.modules)"
    )
    path = os.pathsep.join([str(APP), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = os.environ | {"PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == "False"


def test_the_same_round_of_the_same_seed_replies_the_same_weights():
    def arrays(**message_config):
        return {k: a.data for k, a in train(**message_config)[0].content["arrays"].items()}

    first = arrays(**{"server-round": 1})
    assert first == arrays(**{"server-round": 1})
    assert first != arrays(**{"server-round": 2})


def test_the_servers_mu_and_learning_rate_reach_the_nodes():
    def moved(**message_config):
        reply, sent = train(**message_config)
        received = to_weights(reply.content["arrays"])
        return sum(float(np.square(received[k] - sent[k]).sum()) for k in sent)

    free = moved(lr=0.01)
    assert moved(lr=0.01, **{protocol.PROXIMAL_MU: 10.0}) < free / 2
    assert moved(lr=0.001) < free / 2
    assert moved(lr=0.01, **{protocol.LR_FACTOR: 0.1}) == moved(lr=0.001)


def test_a_spent_budget_ends_after_one_batch():
    started = time.perf_counter()
    reply, _ = train({"local-epochs": 100_000}, **{protocol.DEADLINE_S: 0.2})
    assert not reply.has_error()
    assert time.perf_counter() - started < 20


def test_a_slow_node_sleeps_what_it_would_take_longer(monkeypatch):
    def slept(slowdown):
        naps = []
        monkeypatch.setattr(time, "sleep", naps.append)
        started = time.perf_counter()
        reply, _ = train({"local-epochs": 10}, {"slowdown": slowdown})
        assert not reply.has_error()
        return sum(naps), time.perf_counter() - started

    slept(1)  # the process's first message counts from its start
    nap, took = slept(4)
    assert 0 < nap <= 3 * took  # of the training alone, which is not all that took time
    assert slept(1)[0] == 0


@pytest.mark.parametrize(
    ("node_config", "line"),
    [
        ({"slowdown": 0.5}, "slowdown in node-config must be a number >= 1, got 0.5"),
        ({"data-dir": "/no/such/folder"}, "data-dir must be a folder that exists"),
        ({"partition-id": 7}, r"partition-id must be in \[0, 1\), got 7"),
        ({"partition-id": "one"}, "node-config must give partition-id"),
    ],
)
def test_a_nodes_config_that_cannot_work_is_an_error_reply(node_config, line):
    reply, _ = train(node_config=node_config)
    assert reply.has_error()
    assert line.replace("\\", "") in reply.error.reason


def test_counters_of_batchnorm_survive(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (60, 28, 28), dtype=np.uint8)
    labels = (np.arange(60) % 2).astype(np.uint8)[:, None]
    splits = {f"{s}_{k}": v for s in ("train", "val", "test")
              for k, v in (("images", images), ("labels", labels))}  # fmt: skip
    np.savez(tmp_path / "pneumoniamnist.npz", **splits)
    config = {"task": "medmnist", "model": "resnet18", "data-dir": str(tmp_path)}
    reply, sent = train(config)
    counter = to_weights(reply.content["arrays"])["bn1.num_batches_tracked"]
    assert (counter.dtype, counter.shape, int(counter)) == (np.int64, (), 2)
    assert int(sent["bn1.num_batches_tracked"]) == 0


def test_a_config_error_ends_the_run_with_its_line():
    run_config = DEFAULTS | {"task": "nope"}
    with pytest.raises(ConfigError, match="task must be one of"):
        module("server_app").app(grid(1, run_config), Context(1, 1, {}, RecordDict(), run_config))


def test_check_takes_the_defaults_and_refuses_before_a_run():
    check = module("check").check
    assert PROJECT["tool"]["flower-hpc"]["check"] == f"{check.__module__}:{check.__name__}"
    check(DEFAULTS, None)
    check(DEFAULTS, 1400)
    for config, nodes in [({"alpha": 0}, None), ({}, 0), ({}, 1401)]:
        with pytest.raises(ConfigError):
            check(DEFAULTS | config, nodes)


def test_the_defaults_of_the_app_are_those_of_the_options():
    ours = {k: v for k, v in DEFAULTS.items() if k != "strategy"}
    assert TaskOptions.from_config(ours) == TaskOptions()
    fields = {name.replace("_", "-") for name in TaskOptions.__dataclass_fields__}
    assert set(ours) == fields


def test_apps_are_named_and_an_unknown_one_is_refused():
    assert "benchmark" in apps.NAMES
    with pytest.raises(ConfigError, match="app must be one of benchmark"):
        apps.path("nope")


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")  # Flower's own use of it
def test_it_bundles_as_a_flower_app():
    assert len(build_fab_from_disk(APP)) < 50_000


SIMULATION = """
from flower_hpc_benchmark import client_app, server_app
from flwr.serverapp import ServerApp
from flwr.simulation import run_simulation

app = ServerApp()

@app.main()
def main(grid, context):
    context.run_config = {"strategy": "flower.FedAvg()", "num-rounds": 1}
    server_app.main(grid, context)

run_simulation(app, client_app.app, num_supernodes=2,
               backend_config={"init_args": {"num_cpus": 2}, "client_resources": {"num_cpus": 1}})
"""


def simulated(log, tries=3) -> str:
    """Run the app on Flower's simulation; return what it printed.

    Ray's driver now and then never hears that its actors live, and waits for ever: such a run is ended and
    made once more.
    """
    path = os.pathsep.join([str(APP), *filter(None, [os.environ.get("PYTHONPATH")])])
    for attempt in range(tries):
        # a file, not a pipe, which Ray's daemons would hold open
        with log.open("w") as out:
            process = subprocess.Popen(
                [sys.executable, "-c", SIMULATION],
                stdout=out,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONPATH": path},
                start_new_session=True,
            )
            try:
                assert process.wait(timeout=100) == 0, log.read_text()[-4000:]
                break
            except subprocess.TimeoutExpired:
                text = log.read_text()
                assert attempt < tries - 1, text[-4000:]
                assert "aggregate_train: Received" not in text, text[-4000:]
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return log.read_text()


@pytest.mark.federation
def test_it_runs_on_flowers_own_simulation(tmp_path):
    text = simulated(tmp_path / "log")
    assert "Received 2 results and 0 failures" in text
    accuracies = re.findall(r"MetricRecord: {'accuracy': ([0-9.]+)", text)
    assert float(accuracies[-1]) > 0.5
