"""FedProx (Li et al. 2020, https://arxiv.org/abs/1812.06127) as a preset of the loop."""

from typing import Unpack

from ..protocol import PROXIMAL_MU
from .checks import number
from .hybrid import HybridStrategy
from .options import HybridOptions
from .work import Also, FixedWork


class FedProx(HybridStrategy):
    """FedAvg whose clients are held near the global model, so that unequal work and data do less harm.

    The server's half sends ``mu`` as ``proximal-mu``, the key that Flower's own FedProx uses; the client adds
    ``(mu / 2) ||w - w_t||^2`` to its loss (``flower_hpc.client.proximal_term``). Partial work is the paper's:
    ``work=FitDeadline()`` gives it.

    Parameters
    ----------
    mu : float
        Strength of the term, >= 0; default 0.01. The paper tries 0.001, 0.01, 0.1 and 1.
    **options
        As for :class:`HybridStrategy`.
    """

    def __init__(self, *, mu: float = 0.01, **options: Unpack[HybridOptions]) -> None:
        number("proximal mu", mu, least=0)
        term, work = {PROXIMAL_MU: float(mu)}, options.get("work")
        options["work"] = FixedWork(term) if work is None else Also(work, term)
        super().__init__(**options)
        self.mu = mu
