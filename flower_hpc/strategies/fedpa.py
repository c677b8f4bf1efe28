"""FedPA-style partial aggregation as a preset of the loop (Computer Networks 2021; see ``adaptive.py``)."""

from typing import Unpack

from .adaptive import AdaptiveK
from .hybrid import HybridStrategy, refuse_own
from .options import HybridOptions, merged


class FedPA(HybridStrategy):
    """Wait for the ``k`` fastest, ``k`` adapted each round; the others' updates come late and count less.

    The paper's formulas are not public: the controller is ours, for its idea.

    Parameters
    ----------
    k_min : int
        Never wait for fewer; default 2.
    cost : float
        How much more rounds a noisier mean is taken to cost, > 0; default 1.
    **options
        As for :class:`HybridStrategy`, except ``cutoff``.
    """

    def __init__(self, *, k_min: int = 2, cost: float = 1.0, **options: Unpack[HybridOptions]) -> None:
        refuse_own("FedPA", options, "cutoff", takes_inner=True)
        super().__init__(**merged(options, {"cutoff": AdaptiveK(k_min, cost)}))
