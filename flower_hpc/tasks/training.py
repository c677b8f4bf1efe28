"""Local SGD and evaluation of torch modules."""

from collections.abc import Callable, Iterator
from itertools import islice

import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

from ..errors import ConfigError
from .base import Examples
from .sgd import MOMENTUM, Tally, Training

EVALUATE_BATCH = 256


def device() -> torch.device:
    """CUDA or Apple's MPS where present, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


Loss = Callable[[Tensor, Tensor], Tensor]
"""(outputs, targets) to the loss of each example, shape (batch,)."""


def train(
    model: nn.Module,
    examples: Examples,
    loss_of: Loss,
    training: Training,
    spent: Callable[[], bool] | None = None,
) -> dict[str, float]:
    """Train in place by SGD with momentum 0.9, which starts at zero each time.

    On the CPU equal arguments give equal weights, bit for bit, with the same number of threads
    (``OMP_NUM_THREADS``); torch's global generator is left as it was.

    Parameters
    ----------
    model : Module
        Moved to :func:`device`, and left there.
    examples : Examples
        Read in random order, without workers.
    loss_of : callable
        (outputs, targets) to the loss of each example, shape (batch,), whose mean is minimised.
    training : Training
        How.
    spent : callable, optional
        Asked after each batch; True ends the training there. One batch is always done.

    Returns
    -------
    dict
        As :meth:`Task.train`'s.

    Raises
    ------
    ConfigError
        No examples.
    """
    steps, target = training.steps_of(len(examples)), device()
    model.to(target).train()
    step, tally = _Sgd(model, training), Tally(training.variance)
    gpus = [torch.cuda.current_device()] if target.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        torch.manual_seed(training.seed)
        for inputs, targets in islice(_epochs(examples, training.batch_size, training.seed), steps):
            model.zero_grad()
            losses = loss_of(model(inputs.to(target)), targets.to(target))
            losses.mean().backward()  # type: ignore[no-untyped-call]
            tally.add(losses.detach(), step.gradient())
            step()
            if spent and spent():
                break
    return tally.metrics()


class _Sgd:
    """What ``torch.optim.SGD(lr=lr, momentum=0.9)`` does, with FedProx's term and SCAFFOLD's correction.

    By hand, because making a torch optimizer imports torch's compiler: 4 s in each client process, of
    which Flower starts one per message.
    """

    def __init__(self, model: nn.Module, training: Training) -> None:
        self._lr, self._mu = training.lr, training.proximal_mu
        self._parameters = {k: w for k, w in model.named_parameters() if w.requires_grad}
        self._anchors = {k: w.detach().clone() for k, w in self._parameters.items()} if self._mu else {}
        self._correction = {
            # copies: what came from a wire is read-only, which torch warns of
            k: torch.from_numpy(training.correction[k].copy()).to(w.device)
            for k, w in self._parameters.items()
            if training.correction is not None
        }
        self._velocity: dict[str, Tensor] = {}

    def gradient(self) -> dict[str, Tensor]:
        """That of the loss alone."""
        return {k: w.grad for k, w in self._parameters.items() if w.grad is not None}

    @torch.no_grad()
    def __call__(self) -> None:
        for k, gradient in self.gradient().items():
            w, step = self._parameters[k], gradient
            if self._mu:  # the gradient of FedProx's (mu / 2) ||w - w_t||^2
                step = step + self._mu * (w - self._anchors[k])
            if self._correction:
                step = step + self._correction[k]
            if k in self._velocity:
                self._velocity[k].mul_(MOMENTUM).add_(step)
            else:
                self._velocity[k] = step.clone()
            w.add_(self._velocity[k], alpha=-self._lr)


def _epochs(examples: Examples, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Epoch after epoch, without end."""
    order = RandomSampler(range(len(examples)), generator=torch.Generator().manual_seed(seed))
    while True:
        yield from _loader(examples, BatchSampler(order, batch_size, drop_last=False))


def _loader(examples: Examples, batches: BatchSampler) -> "DataLoader[tuple[Tensor, Tensor]]":
    # batch_size=None: the sampler's lists of indices go to the data set whole, and arrays become tensors. The
    # loader draws a seed for workers that it does not have; given a generator it leaves the global one alone.
    return DataLoader(
        examples,  # type: ignore[arg-type]  # a map-style dataset by its methods
        sampler=batches,
        batch_size=None,
        generator=torch.Generator(),
    )


@torch.no_grad()
def evaluate(
    model: nn.Module,
    examples: Examples,
    loss_of: Loss,
    accuracy_of: Callable[[Tensor, Tensor], Tensor],
) -> dict[str, float]:
    """Loss and accuracy, each the mean over all examples.

    Returns
    -------
    dict
        ``loss``, ``accuracy`` in [0, 1] and ``num-examples``.

    Raises
    ------
    ConfigError
        No examples.
    """
    if len(examples) == 0:
        raise ConfigError("evaluation needs at least one example, got 0")
    target = device()
    model.to(target).eval()
    loss = accuracy = 0.0
    order = SequentialSampler(range(len(examples)))
    for inputs, targets in _loader(examples, BatchSampler(order, EVALUATE_BATCH, drop_last=False)):
        outputs, targets = model(inputs.to(target)), targets.to(target)
        loss += float(loss_of(outputs, targets).mean()) * len(inputs)
        accuracy += float(accuracy_of(outputs, targets)) * len(inputs)
    n = len(examples)
    return {"loss": loss / n, "accuracy": accuracy / n, "num-examples": n}
