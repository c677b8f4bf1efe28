"""The settings of the loop, checked once, and the keyword arguments that its presets pass through."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from flwr.serverapp.strategy import Strategy

from ..errors import ConfigError
from .cutoff import Cutoff, WaitForAll
from .inner import check_inner, sampled_clients
from .selection import RandomSelection, Selection
from .staleness import Discard, Polynomial, Staleness
from .weighting import ByExamples, Weighting
from .work import FixedWork, Work


class HybridOptions(TypedDict, total=False):
    """Every keyword of :class:`HybridStrategy`; see there."""

    selection: Selection
    work: Work
    cutoff: Cutoff
    staleness: Staleness
    weighting: Weighting
    inner: Strategy | None
    fraction_evaluate: float
    min_nodes: int
    node_wait_s: float
    min_replies: int
    grace_s: float
    max_failed_rounds: int
    lost_after_s: float | None
    seed: int | None
    run_name: str
    run_dir: Path | None


@dataclass(frozen=True)
class Settings:
    """The checked form of :class:`HybridOptions`."""

    selection: Selection = field(default_factory=RandomSelection)
    work: Work = field(default_factory=FixedWork)
    cutoff: Cutoff = field(default_factory=WaitForAll)
    staleness: Staleness | None = None
    weighting: Weighting = field(default_factory=ByExamples)
    inner: Strategy | None = None
    fraction_evaluate: float = 1.0
    min_nodes: int = 2
    node_wait_s: float = 300.0
    min_replies: int = 1
    grace_s: float = 10.0
    max_failed_rounds: int = 3
    lost_after_s: float | None = None
    seed: int | None = None
    run_name: str = ""
    run_dir: Path | None = None

    def __post_init__(self) -> None:
        for name in ("min_nodes", "min_replies", "max_failed_rounds"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} must be a whole number >= 1, got {value!r}")
        for name in ("node_wait_s", "grace_s"):
            value = getattr(self, name)
            if not (_is_number(value) and 0 <= value < math.inf):
                raise ConfigError(f"{name} must be a number of seconds >= 0, got {value!r}")
        lost = self.lost_after_s
        if lost is not None and not (_is_number(lost) and 0 < lost < math.inf):
            raise ConfigError(f"lost_after_s must be a number of seconds > 0 or None, got {lost!r}")
        if not (_is_number(self.fraction_evaluate) and 0 <= self.fraction_evaluate <= 1):
            raise ConfigError(f"fraction_evaluate must be in [0, 1], got {self.fraction_evaluate!r}")
        for name, method in (("cutoff", "reason"), ("staleness", "weight"), ("selection", "choose")):
            value = getattr(self, name)
            if value is not None and not hasattr(value, method):
                raise ConfigError(f"{name} must be a {name} policy, got {value!r}")
        if self.inner is not None:
            if not isinstance(self.inner, Strategy) or hasattr(self.inner, "settings"):
                raise ConfigError(f"inner must be a Flower strategy, got {self.inner!r}")
            check_inner(self.inner, self.worth.weight(1) == 0)

    @property
    def worth(self) -> Staleness:
        """The staleness policy: polynomial unless chosen; a DP wrapper takes no late updates."""
        if self.staleness is not None:
            return self.staleness
        if self.inner is not None and sampled_clients(self.inner) is not None:
            return Discard()
        return Polynomial()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
