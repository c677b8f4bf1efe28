"""FedBuff (Nguyen et al. 2022, https://arxiv.org/abs/2106.06639) as a preset of the loop."""

from typing import Unpack

from .cutoff import FirstK
from .hybrid import HybridStrategy, refuse_own
from .options import HybridOptions, merged
from .staleness import Polynomial


class FedBuff(HybridStrategy):
    """A new model with every ``k`` updates, however old: ``w <- w + lr (1/k) sum_i s(tau_i) d_i``.

    Every update is against the model that its node started from. A node that has answered gets the current
    model at once. With weights by examples ``1/k`` becomes ``n_i / sum n``, so that all-fresh buffers give
    FedAvg. A round is one buffer.

    Parameters
    ----------
    k : int
        Size of the buffer; default 10, the paper's.
    server_lr : float
        ``lr`` of the equation, > 0; default 1.
    **options
        As for :class:`HybridStrategy`, except ``cutoff`` and ``damped``. Staleness is ``Polynomial(0.5)``,
        the paper's ``1 / sqrt(1 + tau)``, unless given; ``concurrency`` says how many nodes train at once
        (default: as many as the selection asks); nothing is evaluated on nodes unless asked for.
    """

    def __init__(self, *, k: int = 10, **options: Unpack[HybridOptions]) -> None:
        refuse_own("FedBuff", options, "cutoff", "damped")
        defaults: HybridOptions = {
            "staleness": Polynomial(0.5),
            "refill": True,
            "fraction_evaluate": 0.0,
        }
        own: HybridOptions = {"cutoff": FirstK(k, late=True), "damped": True}
        super().__init__(**merged(defaults, options, own))
