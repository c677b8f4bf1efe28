"""The settings of the loop, checked once, and the keyword arguments that its presets pass through."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from flwr.serverapp.strategy import Strategy

from ..compression import Codec, Compression
from ..errors import ConfigError
from .checks import flag, number, positive, whole
from .compass import Compass
from .cutoff import Cutoff, WaitForAll
from .dropout import FederatedDropout
from .inner import check_inner, sampled_clients
from .selection import RandomSelection, Selection
from .staleness import Discard, Polynomial, Staleness
from .weighting import ByExamples, Weighting
from .work import FixedWork, Work

LEAST_INCLUSION = 0.05  # a node heard once in twenty rounds counts twenty times, and none counts more
INCLUSIONS = (None, "inverse")
MIXES = ("updates", "models")


class HybridOptions(TypedDict, total=False):
    """Every keyword of :class:`HybridStrategy`; see there."""

    selection: Selection
    work: Work
    cutoff: Cutoff
    staleness: Staleness
    weighting: Weighting
    inclusion: str | None
    inner: Strategy | None
    refill: bool
    concurrency: int | None
    server_lr: float
    damped: bool
    mix: str
    normalise_steps: bool
    control: bool
    compression: Compression | Codec | str | Mapping[str, Any]
    dropout: FederatedDropout | float | list[float] | None
    fraction_evaluate: float
    min_nodes: int
    node_wait_s: float
    min_replies: int
    grace_s: float
    max_failed_rounds: int
    lost_after_s: float | None
    profile_every: int
    seed: int | None
    checkpoint_every: int
    keep_checkpoints: int
    resume: bool
    run_name: str
    run_dir: Path | None
    facts: Path | None


def merged(*layers: HybridOptions) -> HybridOptions:
    """Keywords of several sources; later ones win."""
    found: HybridOptions = {}
    for layer in layers:
        found.update(layer)
    return found


@dataclass(frozen=True)
class Settings:
    """The checked form of :class:`HybridOptions`."""

    selection: Selection = field(default_factory=RandomSelection)
    work: Work = field(default_factory=FixedWork)
    cutoff: Cutoff = field(default_factory=WaitForAll)
    staleness: Staleness | None = None
    weighting: Weighting = field(default_factory=ByExamples)
    inclusion: str | None = None
    inner: Strategy | None = None
    refill: bool = False
    concurrency: int | None = None
    server_lr: float = 1.0
    damped: bool = False
    mix: str = "updates"
    normalise_steps: bool = False
    control: bool = False
    compression: Compression = field(default_factory=Compression)
    dropout: FederatedDropout | None = None
    fraction_evaluate: float = 1.0
    min_nodes: int = 2
    node_wait_s: float = 300.0
    min_replies: int = 1
    grace_s: float = 10.0
    max_failed_rounds: int = 3
    lost_after_s: float | None = None
    profile_every: int = 20
    seed: int | None = None
    checkpoint_every: int = 1
    keep_checkpoints: int = 3
    resume: bool = False
    run_name: str = ""
    run_dir: Path | None = None
    facts: Path | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "compression", Compression.of(self.compression))
        object.__setattr__(self, "dropout", FederatedDropout.of(self.dropout))
        for name in ("min_nodes", "min_replies", "max_failed_rounds"):
            whole(name, getattr(self, name))
        for name in ("profile_every", "checkpoint_every"):
            whole(name, getattr(self, name), least=0)
        whole("keep_checkpoints", self.keep_checkpoints, least=2)
        if self.concurrency is not None:
            whole("concurrency", self.concurrency)
        if self.seed is not None and (isinstance(self.seed, bool) or not isinstance(self.seed, int)):
            raise ConfigError(f"seed must be a whole number, got {self.seed!r}")
        for name in ("refill", "damped", "normalise_steps", "control", "resume"):
            flag(name, getattr(self, name))
        for name in ("node_wait_s", "grace_s"):
            number(name, getattr(self, name), least=0)
        if self.lost_after_s is not None:
            positive("lost_after_s", self.lost_after_s)
        positive("server_lr", self.server_lr)
        number("fraction_evaluate", self.fraction_evaluate, least=0, most=1)
        self._check_policies()
        self._check_pairs()

    def _check_policies(self) -> None:
        kinds = {"selection": Selection, "work": Work, "cutoff": Cutoff, "weighting": Weighting}
        for name, kind in (*kinds.items(), ("staleness", Staleness)):
            value = getattr(self, name)
            if not isinstance(value, kind) and not (name == "staleness" and value is None):
                raise ConfigError(f"{name} must be a {name} policy, got {value!r}")
        if self.inclusion not in INCLUSIONS:
            raise ConfigError(f"inclusion must be 'inverse' or None, got {self.inclusion!r}")
        if self.mix not in MIXES:
            raise ConfigError(f"mix must be one of {', '.join(MIXES)}, got {self.mix!r}")

    def _check_pairs(self) -> None:
        if self.refill and isinstance(self.cutoff, WaitForAll):
            raise ConfigError("refill=True keeps every node busy: cutoff must not be WaitForAll()")
        both = isinstance(self.work, Compass), self.cutoff.counts_late
        if both == (True, False) or (isinstance(self.cutoff, Compass) and not both[0]):
            raise ConfigError("compass must be work and cutoff at once: use fedcompass(...)")
        if self.dropout is not None:
            self._check_dropout(self.dropout)
        if self.inner is None:
            return
        if not isinstance(self.inner, Strategy) or hasattr(self.inner, "settings"):
            raise ConfigError(f"inner must be a Flower strategy, got {self.inner!r}")
        check_inner(self.inner, self.worth.weight(1) == 0)
        ours = {"server_lr": 1.0, "damped": False, "mix": "updates", "normalise_steps": False}
        for name, default in {**ours, "control": False, "inclusion": None, "dropout": None}.items():
            if getattr(self, name) != default:
                words = f"{name} must be left out with inner="
                raise ConfigError(f"{words}: {type(self.inner).__name__} joins updates its own way")

    def _check_dropout(self, dropout: FederatedDropout) -> None:
        if self.control:
            raise ConfigError("dropout trains parts of the model: control (SCAFFOLD) must be false")
        if self.mix != "updates":
            raise ConfigError(f"dropout averages updates: mix must be 'updates', got {self.mix!r}")
        if self.compression.delta:
            raise ConfigError("dropout sends each node its own part: compression's delta must be false")
        if dropout.order != "ordered" and self.compression.sparsifies:
            raise ConfigError(
                f"dropout's order must be 'ordered' for codecs that send few entries, got {dropout.order!r}: "
                "what they drop would be added to other units"
            )

    @property
    def goes_on(self) -> bool:
        """Whether a round may begin although nobody is idle, since others are still under way."""
        return self.refill or self.cutoff.counts_late

    @property
    def worth(self) -> Staleness:
        """The staleness policy: polynomial unless chosen; a DP wrapper takes no late updates."""
        if self.staleness is not None:
            return self.staleness
        if self.inner is not None and sampled_clients(self.inner) is not None:
            return Discard()
        return Polynomial()
