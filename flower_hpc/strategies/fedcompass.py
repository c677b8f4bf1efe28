"""FedCompass (Li et al. 2024, https://arxiv.org/abs/2309.14675) as a preset of the loop.

See ``compass.py``.
"""

from typing import Unpack

from .checks import positive
from .compass import Compass
from .hybrid import HybridStrategy, refuse_own
from .options import HybridOptions, merged
from .staleness import Polynomial


class FedCompass(HybridStrategy):
    """Groups of nodes whose work is sized so that they arrive together; a round is one group.

    ``w <- w + alpha sum_i p_i s(tau_i) d_i`` over a group's updates and those that were late for theirs.
    Clients must honour ``local-steps`` and report ``num-steps``.

    Parameters
    ----------
    q_min, q_max : int
        Fewest and most local steps; default 20 and 100, the authors' example.
    latency : float
        Factor between a group's expected and latest arrival, >= 1; default 1.5.
    alpha : float
        Server step, in (0, 1]; default 0.9.
    **options
        As for :class:`HybridStrategy`, except ``work``, ``cutoff``, ``refill``, ``damped``, ``server_lr``.
        Staleness is ``Polynomial(0.5)`` unless given; nothing is evaluated on nodes unless asked for.
    """

    def __init__(
        self,
        *,
        q_min: int = 20,
        q_max: int = 100,
        latency: float = 1.5,
        alpha: float = 0.9,
        **options: Unpack[HybridOptions],
    ) -> None:
        refuse_own("FedCompass", options, "work", "cutoff", "refill", "damped", "server_lr")
        positive("alpha", alpha, most=1.0)
        compass = Compass(q_min, q_max, latency)
        defaults: HybridOptions = {"staleness": Polynomial(0.5), "fraction_evaluate": 0.0}
        own: HybridOptions = {
            "work": compass,
            "cutoff": compass,
            "refill": True,
            "damped": True,
            "server_lr": alpha,
        }
        super().__init__(**merged(defaults, options, own))
