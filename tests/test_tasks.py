"""Tasks: refusals before imports, real data, honest training."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from flower_hpc.errors import ConfigError
from flower_hpc.tasks import TASKS, TaskOptions, Training, load, perceptron, training
from flower_hpc.tasks.digits import Digits
from flower_hpc.tasks.medmnist import first_finding
from flower_hpc.tasks.models import cnn, resnet18
from flower_hpc.tasks.sgd import Tally
from flower_hpc.tasks.shakespeare import CHARACTERS, WINDOW, encode
from flower_hpc.tasks.torch_task import MANY_OF_MANY, TorchTask

DATA = os.environ.get("FLOWER_HPC_DATA", "")
needs_data = pytest.mark.skipif(not DATA, reason="FLOWER_HPC_DATA names no folder with data sets")


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (
            {"task": "nope"},
            "task must be one of cifar10, digits, medmnist, shakespeare, got 'nope'",
        ),
        ({"model": "resnet18"}, "model of digits must be one of mlp, got 'resnet18'"),
        ({"partitioner": "fair"}, "partitioner must be one of dirichlet, iid, natural"),
        ({"partitioner": "natural"}, "needs a task with roles (shakespeare), got task 'digits'"),
        ({"task": "medmnist", "dataset": "nodulemnist3d"}, "dataset must be one of bloodmnist"),
        ({"dataset": "pathmnist"}, "dataset must be empty for digits"),
        ({"alpha": 0.0}, "alpha must be > 0, got 0.0"),
        ({"alpha": float("nan")}, "alpha must be > 0, got nan"),
        ({"classes-per-node": 0}, "classes-per-node must be at least 1, got 0"),
        ({"partitioner": "pathological", "classes-per-node": 11}, "at most 10 for digits, got 11"),
        ({"shards-per-node": 0}, "shards-per-node must be at least 1, got 0"),
        ({"num-rounds": 0}, "num-rounds must be at least 1, got 0"),
        ({"local-epochs": -1}, "local-epochs must be at least 1, got -1"),
        ({"batch-size": 0}, "batch-size must be at least 1, got 0"),
        ({"learning-rate": -0.1}, "learning-rate must be > 0, or 0 for the task's default"),
        ({"test-examples": -2}, "test-examples must be at least -1, got -2"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"fraction-evaluate": 1.5}, "fraction-evaluate must be in [0, 1], got 1.5"),
        ({"num-rounds": 2.5}, "num-rounds must be of type int, got 2.5"),
        ({"batch-size": True}, "batch-size must be of type int, got True"),
        ({"data-dir": "/no/such/folder"}, "data-dir must be a folder that exists"),
    ],
)
def test_a_value_that_cannot_work_is_refused_in_one_line(config, line):
    with pytest.raises(ConfigError) as error:
        TaskOptions.from_config(config)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_defaults_come_from_the_task_and_other_keys_are_left_alone():
    options = TaskOptions.from_config({"task": "medmnist", "alpha": 1, "strategy": "x"})
    info = TASKS["medmnist"]
    assert (options.model, options.dataset) == (info.models[0], "pneumoniamnist")
    assert (options.learning_rate, options.alpha) == (info.learning_rate, 1.0)


def test_options_import_nothing_heavy():
    code = (
        "import sys, flower_hpc.tasks.options\n"
        "print(*{'torch', 'torchvision', 'medmnist', 'sklearn', 'datasets'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


class TorchDigits(TorchTask):
    """The digits with a torch module, to train one where no data has been downloaded."""

    def _build(self):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def _load(self, train):
        return Digits(self.options)._load(train)


@pytest.fixture(params=[Digits, TorchDigits])
def digits(request):
    return request.param(TaskOptions())


def flat(task, model):
    return np.concatenate([x.ravel() for x in task.weights(model).values()])


def test_digits_are_learnt_centrally(digits):
    model, examples, test = digits.build_model(), digits.load_partition(0, 1), digits.load_test()
    digits.train(model, examples, Training(epochs=5, lr=0.05))
    metrics = digits.evaluate(model, test)
    assert metrics["accuracy"] > 0.85
    assert metrics["num-examples"] == len(test) == 1797 - len(examples)


def test_training_is_repeatable_bit_for_bit_and_leaves_torch_as_it_was(digits):
    examples, state = digits.load_partition(1, 4), torch.random.get_rng_state()
    ran = []
    for _ in range(2):
        model = digits.build_model()
        ran.append((digits.train(model, examples, Training(lr=0.1, seed=7)), flat(digits, model)))
        torch.rand(1)
        torch.random.set_rng_state(state)
    assert ran[0][0] == ran[1][0]
    assert np.array_equal(ran[0][1], ran[1][1])
    digits.train(digits.build_model(), examples, Training(lr=0.1, seed=8))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_step_is_that_of_torchs_sgd():
    digits = TorchDigits(TaskOptions())
    ours, theirs = digits.build_model(), digits.build_model()
    examples = digits.load_partition(0, 20).select(np.arange(16))
    digits.train(ours, examples, Training(epochs=3, batch_size=16, lr=0.1))
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=training.MOMENTUM)
    inputs, targets = (torch.from_numpy(x) for x in examples[list(range(16))])
    for _ in range(3):
        optimizer.zero_grad()
        digits.objective.loss(theirs(inputs), targets).mean().backward()
        optimizer.step()
    np.testing.assert_allclose(flat(digits, ours), flat(digits, theirs), rtol=1e-5, atol=1e-6)


def test_the_perceptrons_gradient_is_autograds():
    task = Digits(TaskOptions())
    model, (x, y) = task.build_model(), task.load_partition(0, 4)[list(range(20))]
    losses, grad = perceptron.gradient(model, x.reshape(20, -1), y)
    w = {k: torch.tensor(v, requires_grad=True) for k, v in model.items()}
    hidden = (torch.tensor(x.reshape(20, -1)) @ w["hidden.weight"] + w["hidden.bias"]).relu()
    expected = nn.functional.cross_entropy(hidden @ w["out.weight"] + w["out.bias"], torch.tensor(y))
    expected.backward()
    assert losses.mean() == pytest.approx(expected.item(), rel=1e-5)
    for name, tensor in w.items():
        np.testing.assert_allclose(grad[name], tensor.grad.numpy(), rtol=1e-4, atol=1e-6)


def test_a_spent_budget_ends_training_after_one_batch(digits):
    examples = digits.load_partition(0, 1)
    metrics = digits.train(
        digits.build_model(), examples, Training(lr=0.1, batch_size=10), spent=lambda: True
    )
    assert metrics["examples-seen"] == 10


def test_the_proximal_term_holds_the_model_back(digits):
    start = flat(digits, digits.build_model())

    def moved(mu):
        model = digits.build_model()
        digits.train(model, digits.load_partition(0, 4), Training(lr=0.01, proximal_mu=mu))
        return np.linalg.norm(flat(digits, model) - start)

    assert moved(10.0) < 0.5 * moved(0.0)


def test_weights_go_out_and_come_in_again(digits):
    model, other = digits.build_model(), type(digits)(TaskOptions(seed=1)).build_model()
    assert np.array_equal(flat(digits, model), flat(digits, digits.build_model()))
    assert not np.array_equal(flat(digits, model), flat(digits, other))
    digits.set_weights(other, digits.weights(model))
    assert np.array_equal(flat(digits, model), flat(digits, other))


def test_a_partition_that_does_not_exist_is_refused(digits):
    with pytest.raises(ConfigError, match=r"partition-id must be in \[0, 4\), got 4"):
        digits.load_partition(4, 4)


@pytest.mark.parametrize(("make", "most"), [(cnn, 300_000), (resnet18, 12_000_000)])
@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32)])
def test_image_models_take_their_images(make, most, channels, side):
    model = make(channels, 7)
    assert model(torch.zeros(2, channels, side, side)).shape == (2, 7)
    assert sum(p.numel() for p in model.parameters()) < most


def test_findings_count_one_by_one():
    outputs = torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    assert MANY_OF_MANY.accuracy(outputs, torch.tensor([[1.0, 0.0], [0.0, 1.0]])) == 0.75
    np.testing.assert_array_equal(first_finding(np.array([[0, 1, 1], [0, 0, 0]])), [1, 3])


def recorded(digits, training, **options):
    """Train the first 50 examples; the metrics and the weights."""
    model, examples = digits.build_model(), digits.load_partition(0, 20).select(np.arange(50))
    metrics = digits.train(model, examples, training, **options)
    return metrics, flat(digits, model)


def test_steps_count_what_epochs_count_and_repeat_or_stop_as_needed(digits):
    metrics, by_epochs = recorded(digits, Training(lr=0.1, epochs=2))
    assert (metrics["num-steps"], metrics["examples-seen"]) == (4, 100)
    again, by_steps = recorded(digits, Training(lr=0.1, steps=4))
    assert again == metrics
    assert np.array_equal(by_steps, by_epochs)
    assert recorded(digits, Training(lr=0.1, steps=5))[0]["examples-seen"] == 132
    assert recorded(digits, Training(lr=0.1, epochs=9, steps=1))[0]["examples-seen"] == 32


def test_a_correction_is_added_to_the_gradient(digits):
    shape_of = {k: x.shape for k, x in digits.weights(digits.build_model()).items()}
    _, free = recorded(digits, Training(lr=0.1, steps=1))
    correction = {k: np.full(shape, 0.5, np.float32) for k, shape in shape_of.items()}
    _, held = recorded(digits, Training(lr=0.1, steps=1, correction=correction))
    np.testing.assert_allclose(held - free, -0.05, rtol=1e-3, atol=1e-6)
    zero = {k: np.zeros(shape, np.float32) for k, shape in shape_of.items()}
    assert np.array_equal(recorded(digits, Training(lr=0.1, steps=1, correction=zero))[1], free)


def test_the_variance_is_that_of_the_batch_gradients_alone(digits):
    def variance(**options):
        model, examples = digits.build_model(), digits.load_partition(0, 20).select(np.arange(32))
        training = Training(variance=True, proximal_mu=5.0, **options)
        return digits.train(model, examples, training)["gradient-variance"]

    assert variance(lr=0.1, batch_size=16, steps=1) == 0
    # a step too small to move the model: the same full-batch gradient again and again
    assert variance(lr=1e-12, batch_size=32, steps=3) == pytest.approx(0, abs=1e-6)
    assert variance(lr=1e-12, batch_size=16, steps=2) > 0.001
    assert "gradient-variance" not in recorded(digits, Training(lr=0.1))[0]


@pytest.mark.parametrize("array", [np.array, torch.tensor])
def test_the_variance_is_the_mean_squared_distance_from_the_mean_gradient(array):
    tally = Tally(variance=True)
    for gradient in ([1.0, 3.0], [3.0, 1.0]):
        tally.add(array([3.0, 4.0]), {"w": array(gradient)})
    metrics = tally.metrics()
    assert metrics["gradient-variance"] == pytest.approx(2)
    assert metrics["train-loss"] == pytest.approx(3.5)
    assert metrics["train-loss-rms"] == pytest.approx(12.5**0.5)


def test_the_root_mean_square_of_losses_is_at_least_their_mean(digits):
    metrics, _ = recorded(digits, Training(lr=1e-12, batch_size=50))
    model, examples = digits.build_model(), digits.load_partition(0, 20).select(np.arange(50))
    losses = [digits.evaluate(model, examples.select(np.array([i])))["loss"] for i in range(50)]
    assert metrics["train-loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert metrics["train-loss-rms"] == pytest.approx(np.sqrt(np.mean(np.square(losses))), rel=1e-4)
    assert metrics["train-loss-rms"] >= metrics["train-loss"]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"lr": 0.0}, "lr must be > 0 and finite, got 0.0"),
        ({"lr": float("nan")}, "lr must be > 0"),
        ({"lr": 1.0, "steps": 0}, "steps must be at least 1, got 0"),
        ({"lr": 1.0, "epochs": 0}, "epochs must be at least 1, got 0"),
        ({"lr": 1.0, "batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"lr": 1.0, "proximal_mu": -1.0}, "proximal_mu must be >= 0, got -1.0"),
    ],
)
def test_a_training_that_cannot_work_is_refused(values, line):
    with pytest.raises(ConfigError, match=line):
        Training(**values)


@needs_data
@pytest.mark.parametrize(
    ("task", "model", "shape"),
    [
        ("cifar10", "cnn", (3, 32, 32)),
        ("medmnist", "cnn", (1, 28, 28)),
        ("medmnist", "resnet18", (1, 28, 28)),
    ],
)
def test_images_load_and_train(task, model, shape):
    loaded = load(TaskOptions(task=task, model=model, test_examples=50, data_dir=DATA))
    examples, test = loaded.load_partition(3, 60), loaded.load_test()
    inputs, _ = examples[[0, 1]]
    assert inputs.shape == (2, *shape)
    assert abs(float(inputs.mean())) < 2
    net = loaded.build_model()
    loaded.train(net, examples.select(np.arange(16)), Training(lr=0.01))
    assert 0 <= loaded.evaluate(net, test)["accuracy"] <= 1
    assert len(test) == 50


@needs_data
def test_the_task_folder_itself_is_a_data_dir_too():
    options = TaskOptions(task="medmnist", data_dir=f"{DATA}/medmnist")
    assert len(load(options).load_test()) == 624


@needs_data
def test_a_role_is_a_client_and_its_test_text_is_not_in_training():
    task = load(TaskOptions(task="shakespeare", partitioner="natural", data_dir=DATA))
    examples = task.load_partition(0, 50)
    assert len(set(examples.roles.tolist())) == 1
    x, y = examples[[0, 1, 2]]
    assert x.shape == (3, WINDOW)
    assert y.tolist() == examples.labels[:3].tolist()
    assert len(examples) >= 4
    assert len(task.load_test()) == 2000


def test_nine_tenths_of_a_role_are_for_training_and_share_no_text_with_the_rest(tmp_path):
    text = "".join(CHARACTERS[i % 80] for i in range(2000))
    speeches = [{"play": "p", "role": "A", "text": t} for t in (text[:700], text[701:])]
    (tmp_path / "speeches.jsonl").write_text("\n".join(map(json.dumps, speeches)))
    task = load(TaskOptions(task="shakespeare", partitioner="natural", data_dir=str(tmp_path)))
    examples, test = task.load_partition(0, 1), task.load_test()
    assert (len(examples), len(test)) == (1800 - WINDOW, 200 - WINDOW)
    joined = "".join(CHARACTERS[c] for c in [*examples.text, *test.text])
    assert joined == text[:700] + "\n" + text[701:]


def _leaf(folder, users):
    for split in ("train", "test"):
        (folder / split).mkdir(parents=True)
        data = {
            u: {"x": [(f"{u} says: " * 20)[:WINDOW]] * n, "y": list("abcdefgh"[:n])} for u, n in users.items()
        }
        content = {"users": list(users), "num_samples": list(users.values()), "user_data": data}
        (folder / split / "all_data.json").write_text(json.dumps(content))


def test_leafs_json_loads_a_user_a_client(tmp_path):
    _leaf(tmp_path / "shakespeare", {"ROMEO": 5, "JULIET": 6, "PAGE": 2})
    task = load(TaskOptions(task="shakespeare", partitioner="natural", data_dir=str(tmp_path), seed=5))
    parts = [task.load_partition(i, 2) for i in range(2)]
    assert sorted(len(part) for part in parts) == [5, 6]
    x, y = parts[0][list(range(len(parts[0])))]
    assert x.shape[1] == WINDOW
    assert "".join(CHARACTERS[c] for c in x[0]).startswith(("ROMEO says: ", "JULIET says: "))
    assert sorted(CHARACTERS[c] for c in y) == list("abcdefgh"[: len(y)])
    with pytest.raises(ConfigError, match="at most the 2 roles with enough text, got 3"):
        task.load_partition(0, 3)


def test_characters_outside_the_vocabulary_become_spaces():
    assert "".join(CHARACTERS[c] for c in encode("a$é?Z}")) == "a  ?Z}"


@pytest.mark.parametrize(
    ("task", "file"),
    [
        ("cifar10", "cifar-10-python.tar.gz"),
        ("medmnist", "pneumoniamnist.npz"),
        ("shakespeare", "speeches.jsonl"),
    ],
)
def test_missing_files_are_named_with_their_place_in_one_line(task, file, tmp_path):
    with pytest.raises(ConfigError) as error:
        load(TaskOptions(task=task, data_dir=str(tmp_path))).load_test()
    line = str(error.value)
    assert file in line
    assert str(tmp_path / task) in line
    assert "\n" not in line


def test_a_failed_download_says_where_to_put_which_file(monkeypatch, tmp_path):
    def offline(*args, **kwargs):
        raise OSError("Network is unreachable")

    monkeypatch.delenv("FLOWER_HPC_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", offline)
    for task in ("cifar10", "medmnist"):
        with pytest.raises(ConfigError, match=r"no data \(download failed: .*\): put ") as error:
            load(TaskOptions(task=task)).load_test()
        assert "\n" not in str(error.value)
        assert str(tmp_path) in str(error.value)


def test_the_environment_names_the_data_and_must_exist(monkeypatch, tmp_path):
    monkeypatch.setenv("FLOWER_HPC_DATA", str(tmp_path / "gone"))
    with pytest.raises(ConfigError, match="FLOWER_HPC_DATA must be a folder that exists"):
        load(TaskOptions(task="medmnist"))
