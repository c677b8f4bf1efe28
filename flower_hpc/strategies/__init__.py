"""Strategies and the policies that they are made of; torch is not needed here."""

from .configured import configured, recorded
from .cutoff import Cutoff, Deadline, FirstK, WaitForAll
from .fedavg import FedAvg
from .fedprox import FedProx
from .hybrid import HybridStrategy
from .selection import RandomSelection, Selection
from .spec import check, parse
from .staleness import Discard, Polynomial, Staleness
from .weighting import ByExamples, Weighting
from .work import FixedWork, Work

__all__ = [
    "ByExamples",
    "Cutoff",
    "Deadline",
    "Discard",
    "FedAvg",
    "FedProx",
    "FirstK",
    "FixedWork",
    "HybridStrategy",
    "Polynomial",
    "RandomSelection",
    "Selection",
    "Staleness",
    "WaitForAll",
    "Weighting",
    "Work",
    "check",
    "configured",
    "parse",
    "recorded",
]
