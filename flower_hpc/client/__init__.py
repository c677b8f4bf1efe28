"""What a ClientApp adds to take part well: budget and profile mods, terms of FedProx, FedNova, SCAFFOLD."""

from .budget import Budget, KeepBudget, budget_of
from .profile import ProfiledApp, ReportProfile
from .proximal import proximal_term
from .scaffold import Control
from .steps import effective_steps

__all__ = [
    "Budget",
    "Control",
    "KeepBudget",
    "ProfiledApp",
    "ReportProfile",
    "budget_of",
    "effective_steps",
    "proximal_term",
]
