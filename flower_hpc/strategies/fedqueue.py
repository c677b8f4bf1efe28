"""FedQueue (FedQueue 2026, https://arxiv.org/abs/2605.02125) as a preset of the loop.

See ``queue_aware.py``.
"""

from typing import Unpack

from .checks import number
from .cutoff import Deadline
from .hybrid import HybridStrategy, refuse_own
from .options import HybridOptions, merged
from .queue_aware import Ewma, QueueAware, QueueEstimate
from .staleness import Harmonic


class FedQueue(HybridStrategy):
    """Rounds of fixed length whose work fits what the batch queues leave of them.

    A round ends when all have answered, or after ``(1 + tolerance) sync_s``. Updates whose queue was longer
    than planned join the next model. Here they count as updates from their own base; the authors average
    models, which takes back what others have learnt since.

    Parameters
    ----------
    sync_s : float
        Seconds of a round, > 0; default 3600.
    safety_s : float
        Kept free at its end, >= 0; default 60.
    warm_up : int
        Fewest local steps; default 20.
    admission : float
        Share of a round by which a queue may be longer than expected, >= 0; default 0.2.
    tolerance : float
        >= 0; default 0.15.
    estimate : QueueEstimate
        ``Ewma()`` (default) or ``Quantile()``.
    **options
        As for :class:`HybridStrategy`, except ``work`` and ``cutoff``. Staleness is ``Harmonic(0.5)``
        unless given.
    """

    def __init__(
        self,
        *,
        sync_s: float = 3600.0,
        safety_s: float = 60.0,
        warm_up: int = 20,
        admission: float = 0.2,
        tolerance: float = 0.15,
        estimate: QueueEstimate | None = None,
        **options: Unpack[HybridOptions],
    ) -> None:
        refuse_own("FedQueue", options, "work", "cutoff", takes_inner=True)
        number("tolerance", tolerance, least=0)
        work = QueueAware(sync_s, safety_s, warm_up, admission, Ewma() if estimate is None else estimate)
        defaults: HybridOptions = {"staleness": Harmonic(0.5)}
        own: HybridOptions = {"work": work, "cutoff": Deadline((1 + tolerance) * sync_s)}
        super().__init__(**merged(defaults, options, own))
