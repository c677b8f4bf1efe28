"""``flower-hpc doctor``: what usually goes wrong on this machine and at a site, found before a job waits.

``visit`` is the order of the questions; ``machine``, ``slurm``, ``ec2``, ``kubernetes`` and ``handed``
ask without a job; ``probe`` sends a short job to Slurm, ``report`` and ``log`` judge what came back of it;
each answer is a ``finding``.
"""

from .finding import Finding, Health
from .visit import TIMEOUT_S, examine

__all__ = ["TIMEOUT_S", "Finding", "Health", "examine"]
