"""A perceptron with one hidden layer, in NumPy: importing torch takes seconds, of every message."""

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np

from ..errors import ConfigError
from ..records import NDArray, Weights
from .base import Examples, Task, units
from .sgd import MOMENTUM, Tally, Training

HIDDEN = 256


class PerceptronTask(Task[Weights]):
    """Inputs of any shape, flattened; ReLU; softmax over the classes. The model is its weights, float32."""

    inputs: int
    classes: int

    def build_model(self, width: float = 1.0) -> Weights:
        """Uniform in +-1/sqrt(inputs of the layer), as torch's Linear."""
        hidden = units(HIDDEN, width)
        rng = np.random.default_rng(self.options.seed)

        def layer(fan_in: int, fan_out: int) -> tuple[NDArray, NDArray]:
            bound = fan_in**-0.5
            sizes = ((fan_in, fan_out), (fan_out,))
            weight, bias = (rng.uniform(-bound, bound, size).astype(np.float32) for size in sizes)
            return weight, bias

        (w1, b1), (w2, b2) = layer(self.inputs, hidden), layer(hidden, self.classes)
        return {"hidden.weight": w1, "hidden.bias": b1, "out.weight": w2, "out.bias": b2}

    def weights(self, model: Weights) -> Weights:
        """A copy."""
        return {k: x.copy() for k, x in model.items()}

    def set_weights(self, model: Weights, weights: Weights) -> None:
        """Replace them; other names or shapes are an error."""
        if {k: x.shape for k, x in model.items()} != {k: x.shape for k, x in weights.items()}:
            raise ConfigError(f"weights must be {sorted(model)} of the model's shapes, got {sorted(weights)}")
        model.update({k: np.array(x) for k, x in weights.items()})

    def train(
        self,
        model: Weights,
        examples: Examples,
        training: Training,
        spent: Callable[[], bool] | None = None,
    ) -> dict[str, float]:
        """By SGD with momentum 0.9; equal arguments give equal weights."""
        steps = training.steps_of(len(examples))
        anchor, mu = self.weights(model), training.proximal_mu
        velocity = {k: np.zeros_like(x) for k, x in model.items()}
        tally = Tally(training.variance)
        for index in islice(_batches(len(examples), training.batch_size, training.seed), steps):
            x, y = examples[index]
            losses, grad = gradient(model, x.reshape(len(x), -1), y)
            tally.add(losses, grad)
            for k in model:
                # the gradient of FedProx's (mu / 2) ||w - w_t||^2
                step = grad[k] + mu * (model[k] - anchor[k]) if mu else grad[k]
                if training.correction is not None:
                    step = step + training.correction[k]
                velocity[k] = MOMENTUM * velocity[k] + step
                model[k] = model[k] - np.float32(training.lr) * velocity[k]
            if spent and spent():
                break
        return tally.metrics()

    def evaluate(self, model: Weights, examples: Examples) -> dict[str, float]:
        """Cross-entropy and accuracy of the likeliest class."""
        if len(examples) == 0:
            raise ConfigError("evaluation needs at least one example, got 0")
        x, y = examples[list(range(len(examples)))]
        _, log_p = forward(model, x.reshape(len(x), -1))
        rows = np.arange(len(y))
        loss, accuracy = -log_p[rows, y].mean(), (log_p.argmax(1) == y).mean()
        return {"loss": float(loss), "accuracy": float(accuracy), "num-examples": len(y)}


def forward(model: Weights, x: NDArray) -> tuple[NDArray, NDArray]:
    """Hidden activations and log-probabilities of a batch, shapes (batch, hidden) and (batch, classes)."""
    hidden = np.maximum(x @ model["hidden.weight"] + model["hidden.bias"], 0)
    logits = hidden @ model["out.weight"] + model["out.bias"]
    logits = logits - logits.max(1, keepdims=True)
    return hidden, logits - np.log(np.exp(logits).sum(1, keepdims=True))


def gradient(model: Weights, x: NDArray, y: NDArray) -> tuple[NDArray, Weights]:
    """Cross-entropy of each example, float64 of shape (batch,), and its mean's gradient by each weight."""
    hidden, log_p = forward(model, x)
    rows = np.arange(len(y))
    error = np.exp(log_p)
    error[rows, y] -= 1
    error /= len(y)
    back = (error @ model["out.weight"].T) * (hidden > 0)
    grad = {
        "hidden.weight": x.T @ back,
        "hidden.bias": back.sum(0),
        "out.weight": hidden.T @ error,
        "out.bias": error.sum(0),
    }
    return -log_p[rows, y].astype(np.float64), grad


def _batches(examples: int, batch_size: int, seed: int) -> Iterator[list[int]]:
    """Epoch after epoch, without end."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(examples)
        for start in range(0, examples, batch_size):
            yield order[start : start + batch_size].tolist()
