"""FedNova (Wang et al. 2020, https://arxiv.org/abs/2007.07481) as a preset of the loop."""

from typing import Unpack

from .hybrid import HybridStrategy, refuse_own
from .options import HybridOptions, merged


class FedNova(HybridStrategy):
    """FedAvg whose updates are divided by the steps behind them, so unequal work does not bias the model.

    ``w <- w + (sum_i p_i a_i) sum_i p_i d_i / a_i`` with ``p_i = n_i / n`` (equation 8). Clients report
    ``num-steps``, or ``effective-steps`` (``flower_hpc.client.effective_steps``) where they train with
    momentum.

    Parameters
    ----------
    **options
        As for :class:`HybridStrategy`, except ``normalise_steps``.
    """

    def __init__(self, **options: Unpack[HybridOptions]) -> None:
        refuse_own("FedNova", options, "normalise_steps")
        super().__init__(**merged(options, {"normalise_steps": True}))
