"""FedAsync (Xie et al. 2019, https://arxiv.org/abs/1903.03934) as a preset of the loop."""

from typing import Unpack

from ..protocol import PROXIMAL_MU
from .checks import number, positive
from .cutoff import FirstK
from .hybrid import HybridStrategy, refuse_own
from .options import HybridOptions, merged
from .staleness import Polynomial
from .work import FixedWork


class FedAsync(HybridStrategy):
    """A new model with every reply: ``w <- (1 - a) w + a w_i`` with ``a = alpha s(tau)``.

    A node that has answered gets the new model at once. As in the paper a stale model counts as the model
    that it is, which pulls back what others have learnt since; ``mix="updates"`` counts its update instead. A
    round is one reply, so ``num_rounds`` is the number of replies to take.

    Parameters
    ----------
    alpha : float
        Mixing weight of a fresh model, in (0, 1]; default 0.6.
    rho : float
        Strength of the clients' proximal term, >= 0; default 0.005, the paper's. 0: none.
    **options
        As for :class:`HybridStrategy`, except ``cutoff``, ``work``, ``server_lr``, ``damped``. Staleness is
        ``Polynomial(0.5, max_staleness=100)`` unless given (each reply makes a version, so that with n nodes
        most replies are about n versions old); nothing is evaluated on nodes unless asked for.
    """

    def __init__(self, *, alpha: float = 0.6, rho: float = 0.005, **options: Unpack[HybridOptions]) -> None:
        refuse_own("FedAsync", options, "cutoff", "work", "server_lr", "damped")
        positive("alpha", alpha, most=1.0)
        number("rho", rho, least=0)
        defaults: HybridOptions = {
            "staleness": Polynomial(0.5, max_staleness=100),
            "mix": "models",
            "refill": True,
            "fraction_evaluate": 0.0,
        }
        if rho:
            defaults["work"] = FixedWork({PROXIMAL_MU: float(rho)})
        own: HybridOptions = {"cutoff": FirstK(1, late=True), "server_lr": alpha, "damped": True}
        super().__init__(**merged(defaults, options, own))
