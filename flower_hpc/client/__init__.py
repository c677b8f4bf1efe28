"""What a ClientApp adds to take part well: mods (budget, profile, jobs), and terms of algorithms."""

from .budget import Budget, KeepBudget, budget_of
from .offload import Offload
from .profile import ProfiledApp, ReportProfile
from .proximal import proximal_term
from .scaffold import Control
from .site import AsSite
from .steps import effective_steps

__all__ = [
    "AsSite",
    "Budget",
    "Control",
    "KeepBudget",
    "Offload",
    "ProfiledApp",
    "ReportProfile",
    "budget_of",
    "effective_steps",
    "proximal_term",
]
