"""What a ClientApp adds to take part well: the budget mod, FedProx's proximal term."""

from .budget import Budget, KeepBudget, budget_of
from .proximal import proximal_term

__all__ = ["Budget", "KeepBudget", "budget_of", "proximal_term"]
