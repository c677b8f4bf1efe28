"""Local SGD and evaluation of torch modules."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

from ..errors import ConfigError
from .base import Examples

MOMENTUM = 0.9
EVALUATE_BATCH = 256


def device() -> torch.device:
    """CUDA or Apple's MPS where present, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


Loss = Callable[[Tensor, Tensor], Tensor]
"""(outputs, targets) to a scalar, the mean over the batch."""


def train(
    model: nn.Module,
    examples: Examples,
    loss_of: Loss,
    *,
    epochs: int = 1,
    batch_size: int = 32,
    lr: float,
    seed: int = 0,
    penalty: Callable[[nn.Module], Tensor | float] | None = None,
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
        Read in random order, without workers; the last batch of an epoch may be smaller.
    loss_of : callable
        (outputs, targets) to a scalar, the mean over the batch.
    epochs, batch_size : int
        Passes over the data; examples a step.
    lr : float
        Learning rate.
    seed : int
        Of the order and of dropout.
    penalty : callable, optional
        Added to each batch's loss, as FedProx's term is; not part of the reported loss.
    spent : callable, optional
        Asked after each batch; True ends the training there. One batch is always done.

    Returns
    -------
    dict
        ``train-loss`` (mean over the examples seen) and ``examples-seen`` (with repetition).

    Raises
    ------
    ConfigError
        No examples.
    """
    if len(examples) == 0:
        raise ConfigError("a node needs at least one training example, got 0")
    target = device()
    model.to(target).train()
    velocity: dict[nn.Parameter, Tensor] = {}
    total, seen = torch.zeros((), device=target), 0
    gpus = [torch.cuda.current_device()] if target.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        torch.manual_seed(seed)
        for inputs, targets in _epochs(examples, epochs, batch_size, seed):
            model.zero_grad()
            loss = loss_of(model(inputs.to(target)), targets.to(target))
            (loss + penalty(model) if penalty else loss).backward()  # type: ignore[no-untyped-call]
            _step(model, velocity, lr)
            total, seen = total + loss.detach() * len(inputs), seen + len(inputs)
            if spent and spent():
                break
    return {"train-loss": float(total) / seen, "examples-seen": float(seen)}


@torch.no_grad()
def _step(model: nn.Module, velocity: dict[nn.Parameter, Tensor], lr: float) -> None:
    """What ``torch.optim.SGD(lr=lr, momentum=0.9)`` does.

    By hand, because making a torch optimizer imports torch's compiler: 4 s in each client process, of
    which Flower starts one per message.
    """
    for w in model.parameters():
        if w.grad is None:
            continue
        if w in velocity:
            velocity[w].mul_(MOMENTUM).add_(w.grad)
        else:
            velocity[w] = w.grad.clone()
        w.add_(velocity[w], alpha=-lr)


def _epochs(examples: Examples, epochs: int, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    order = RandomSampler(range(len(examples)), generator=torch.Generator().manual_seed(seed))
    for _ in range(epochs):
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
def evaluate(model: nn.Module, examples: Examples, loss_of: Loss, accuracy_of: Loss) -> dict[str, float]:
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
        loss += float(loss_of(outputs, targets)) * len(inputs)
        accuracy += float(accuracy_of(outputs, targets)) * len(inputs)
    n = len(examples)
    return {"loss": loss / n, "accuracy": accuracy / n, "num-examples": n}
