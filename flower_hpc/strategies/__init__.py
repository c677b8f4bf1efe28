"""Strategies and the policies that they are made of; torch is not needed here."""

from .adaptive import AdaptiveDeadline, AdaptiveK
from .compass import Compass
from .configured import configured, recorded
from .criteria import Where
from .cutoff import Cutoff, Deadline, FirstK, WaitForAll
from .dropout import FederatedDropout
from .fedasync import FedAsync
from .fedavg import FedAvg
from .fedbuff import FedBuff
from .fedcompass import FedCompass
from .fednova import FedNova
from .fedpa import FedPA
from .fedprox import FedProx
from .fedqueue import FedQueue
from .hybrid import HybridStrategy
from .ledger import Ledger
from .oort import Oort
from .queue_aware import Ewma, Quantile, QueueAware, QueueEstimate
from .registry import describe
from .resource_aware import ResourceAware
from .scaffold import Scaffold
from .selection import RandomSelection, Selection
from .situation import Situation
from .spec import check, compose, from_mapping, parse, with_default
from .staleness import Constant, Discard, Exponential, Harmonic, Hinge, Polynomial, Staleness
from .weighting import ByExamples, ByGradientVariance, ByLoss, Weighting
from .work import FitDeadline, FixedWork, Work

__all__ = [
    "AdaptiveDeadline",
    "AdaptiveK",
    "ByExamples",
    "ByGradientVariance",
    "ByLoss",
    "Compass",
    "Constant",
    "Cutoff",
    "Deadline",
    "Discard",
    "Ewma",
    "Exponential",
    "FedAsync",
    "FedAvg",
    "FedBuff",
    "FedCompass",
    "FedNova",
    "FedPA",
    "FedProx",
    "FedQueue",
    "FederatedDropout",
    "FirstK",
    "FitDeadline",
    "FixedWork",
    "Harmonic",
    "Hinge",
    "HybridStrategy",
    "Ledger",
    "Oort",
    "Polynomial",
    "Quantile",
    "QueueAware",
    "QueueEstimate",
    "RandomSelection",
    "ResourceAware",
    "Scaffold",
    "Selection",
    "Situation",
    "Staleness",
    "WaitForAll",
    "Weighting",
    "Where",
    "Work",
    "check",
    "compose",
    "configured",
    "describe",
    "from_mapping",
    "parse",
    "recorded",
    "with_default",
]
