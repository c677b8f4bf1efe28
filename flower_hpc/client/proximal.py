"""FedProx's client half (Li et al. 2020, https://arxiv.org/abs/1812.06127), for torch losses."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


def proximal_term(parameters: Iterable["Tensor"], anchors: Iterable["Tensor"], mu: float) -> "Tensor | float":
    """``(mu / 2) * ||w - w_t||^2``, summed over trainable parameters (equation 2); add it to the loss.

    Parameters
    ----------
    parameters : iterable of Tensor
        The model's ``parameters()``, any shapes. Those with ``requires_grad=False`` are left out, and
        buffers (BatchNorm statistics) are no parameters: neither is pulled back.
    anchors : iterable of Tensor
        The global model's parameters in the same order, as ``[p.detach().clone() for p in ...]``.
    mu : float
        Strength, >= 0; the paper tries 0.001, 0.01, 0.1 and 1.

    Returns
    -------
    Tensor or float
        A scalar that carries gradients; 0.0 where ``mu`` is 0.

    Raises
    ------
    ConfigError
        ``mu`` below 0 or not finite.
    """
    if not 0 <= mu < float("inf"):
        raise ConfigError(f"proximal mu must be >= 0, got {mu}")
    if mu == 0:
        return 0.0
    squared = [
        (w - anchor.to(w.device)).square().sum()
        for w, anchor in zip(parameters, anchors, strict=True)
        if w.requires_grad
    ]
    return mu / 2 * sum(squared) if squared else 0.0
