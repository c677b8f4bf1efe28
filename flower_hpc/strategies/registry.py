"""Every strategy and policy by the name that specs use, and what ``flower-hpc strategies`` tells of it."""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from flwr.serverapp import strategy as flower

from ..compression import CODECS, Compression
from .adaptive import AdaptiveDeadline, AdaptiveK
from .compass import Compass
from .cutoff import Deadline, FirstK, WaitForAll
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
from .oort import Oort
from .options import Settings
from .queue_aware import Ewma, Quantile, QueueAware
from .resource_aware import ResourceAware
from .scaffold import Scaffold
from .selection import RandomSelection
from .staleness import Constant, Discard, Exponential, Harmonic, Hinge, Polynomial
from .weighting import ByExamples, ByGradientVariance, ByLoss
from .work import FitDeadline, FixedWork

STRATEGIES: dict[str, Callable[..., Any]] = {
    "hybrid": HybridStrategy,
    "fedavg": FedAvg,
    "fedprox": FedProx,
    "fedpa": FedPA,
    "fedasync": FedAsync,
    "fedbuff": FedBuff,
    "fedcompass": FedCompass,
    "fedqueue": FedQueue,
    "fednova": FedNova,
    "scaffold": Scaffold,
}
KINDS: dict[str, dict[str, Callable[..., Any]]] = {
    "strategy": STRATEGIES,
    "selection": {
        "random_selection": RandomSelection,
        "resource_aware": ResourceAware,
        "oort": Oort,
    },
    "work": {
        "fixed_work": FixedWork,
        "fit_deadline": FitDeadline,
        "compass": Compass,
        "queue_aware": QueueAware,
    },
    "cutoff": {
        "wait_for_all": WaitForAll,
        "deadline": Deadline,
        "first_k": FirstK,
        "adaptive_deadline": AdaptiveDeadline,
        "adaptive_k": AdaptiveK,
    },
    "staleness": {
        "discard": Discard,
        "constant": Constant,
        "polynomial": Polynomial,
        "hinge": Hinge,
        "harmonic": Harmonic,
        "exponential": Exponential,
    },
    "weighting": {
        "by_examples": ByExamples,
        "by_loss": ByLoss,
        "by_gradient_variance": ByGradientVariance,
    },
    "estimate": {"ewma": Ewma, "quantile": Quantile},
    "dropout": {"federated_dropout": FederatedDropout},
    "compression": {"compress": Compression},
    "codec": CODECS,
}
NAMES = {name: make for kind in KINDS.values() for name, make in kind.items()}
FLOWER: dict[str, Callable[..., Any]] = {
    name: value
    for name in flower.__all__
    if isinstance(value := getattr(flower, name), type) and issubclass(value, flower.FedAvg)
}
MARKUP = re.compile(r"(?::\w+:)?`+([^`]*)`+")
PAPER = re.compile(r"\(([^();]*\b(?:19|20)\d\d\b[^();]*)")  # in brackets, with a year
NOT_SPEC = {"run_name", "run_dir", "resume", "facts"}  # a run's own


def describe() -> list[dict[str, Any]]:
    """What there is: ``kind``, ``name``, ``summary``, ``help``, ``parameters``, ``paper`` (or None).

    ``parameters`` has each one's default, the text of a spec, by name; a parameter without one has None.
    """
    found = []
    for kind, members in KINDS.items():
        for name, make in members.items():
            text = inspect.getdoc(make) or ""
            entry: dict[str, Any] = {"kind": kind, "name": name}
            entry["summary"] = MARKUP.sub(r"\1", text.partition("\n")[0])
            entry["help"] = MARKUP.sub(r"\1", text)
            found.append(entry | {"parameters": _parameters(name, make), "paper": _paper(make)})
    return found


def _paper(make: Callable[..., Any]) -> str | None:
    module = inspect.getmodule(make)
    for text in (inspect.getdoc(make) or "", (module and inspect.getdoc(module)) or ""):
        if found := PAPER.search(text):
            return " ".join(found.group(1).split())
    return None


def _parameters(name: str, make: Callable[..., Any]) -> dict[str, str | None]:
    if make is HybridStrategy:  # its signature is one of keywords; these are their defaults
        return {
            f.name: _text(getattr(Settings(), f.name)) for f in fields(Settings) if f.name not in NOT_SPEC
        }
    found = inspect.signature(make).parameters.values()
    return {
        p.name: None if p.default is p.empty else _text(_made(make, p.name, p.default))
        for p in found
        if p.kind is not p.VAR_KEYWORD
    }


def _made(make: Callable[..., Any], name: str, default: object) -> object:
    # the default of a dataclass's field may be a factory, which a signature does not show
    for field in fields(make) if is_dataclass(make) else ():
        if field.name == name and field.default_factory is not MISSING:
            return field.default_factory()
    return default


def _text(default: object) -> str:
    if isinstance(default, Compression):
        return default.up.spec
    names = [name for name, make in NAMES.items() if make is type(default)]
    return names[0] if names else repr(dict(default)) if isinstance(default, Mapping) else repr(default)
