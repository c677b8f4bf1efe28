"""SCAFFOLD (Karimireddy et al. 2020, https://arxiv.org/abs/1910.06378) as a preset of the loop.

See ``control.py``.
"""

from typing import Unpack

from .hybrid import HybridStrategy, refuse_own
from .options import HybridOptions, merged


class Scaffold(HybridStrategy):
    """Control variates correct the drift of clients whose data differ.

    Clients use ``flower_hpc.client.Control``; a reply without its change is refused. Their own variates live
    in Flower's ``context.state``, and start at zero where a SuperNode starts anew.

    Parameters
    ----------
    **options
        As for :class:`HybridStrategy`, except ``control`` and ``inner``. ``server_lr`` is the paper's global
        step size; default 1.
    """

    def __init__(self, **options: Unpack[HybridOptions]) -> None:
        refuse_own("Scaffold", options, "control", "inner")
        super().__init__(**merged(options, {"control": True}))
