"""FedProx (Li et al. 2020, https://arxiv.org/abs/1812.06127) as a preset of the loop."""

import math
from typing import Unpack

from ..errors import ConfigError
from ..protocol import PROXIMAL_MU
from .hybrid import HybridStrategy
from .options import HybridOptions
from .work import FixedWork


class FedProx(HybridStrategy):
    """FedAvg whose clients are held near the global model, so that unequal work and data do less harm.

    The server's half sends ``mu`` as ``proximal-mu``, the key that Flower's own FedProx uses; the client adds
    ``(mu / 2) ||w - w_t||^2`` to its loss (``flower_hpc.client.proximal_term``).

    Parameters
    ----------
    mu : float
        Strength of the term, >= 0; default 0.01. The paper tries 0.001, 0.01, 0.1 and 1.
    **options
        As for :class:`HybridStrategy`, except ``work``.
    """

    def __init__(self, *, mu: float = 0.01, **options: Unpack[HybridOptions]) -> None:
        if isinstance(mu, bool) or not isinstance(mu, int | float) or not 0 <= mu < math.inf:
            raise ConfigError(f"proximal mu must be a number >= 0, got {mu!r}")
        if "work" in options:
            raise ConfigError("FedProx sets work itself; use HybridStrategy(work=...) to combine")
        options["work"] = FixedWork({PROXIMAL_MU: float(mu)})
        super().__init__(**options)
        self.mu = mu
