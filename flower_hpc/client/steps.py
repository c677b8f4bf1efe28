"""How far a number of local steps moves a model (FedNova: Wang et al. 2020, https://arxiv.org/abs/2007.07481)."""

from ..errors import ConfigError


def effective_steps(steps: int, momentum: float = 0.0) -> float:
    """FedNova's ``||a_i||_1``: the gradients that local SGD adds up, counted with their weights.

    With momentum each gradient also acts in the steps after its own (section 4.2 of the paper), so that ``n``
    steps with momentum 0.9 come to ten times as many for large ``n``. Reply with it as ``effective-steps``.

    Parameters
    ----------
    steps : int
        Optimizer steps done, >= 0.
    momentum : float
        Of SGD with a buffer that starts at zero, as ``torch.optim.SGD``'s, in [0, 1); default 0.

    Returns
    -------
    float
        ``steps`` without momentum.

    Raises
    ------
    ConfigError
        A value out of its range.
    """
    if not steps >= 0:
        raise ConfigError(f"steps must be >= 0, got {steps!r}")
    if not 0 <= momentum < 1:
        raise ConfigError(f"momentum must be in [0, 1), got {momentum!r}")
    return (steps - momentum * (1 - momentum**steps) / (1 - momentum)) / (1 - momentum)
