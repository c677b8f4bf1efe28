"""Every strategy and policy by the name that specs use, and what ``flower-hpc strategies`` tells of it."""

import inspect
import re
from collections.abc import Callable
from typing import Any

from flwr.serverapp import strategy as flower

from .adaptive import AdaptiveDeadline, AdaptiveK
from .compass import Compass
from .cutoff import Deadline, FirstK, WaitForAll
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
}
NAMES = {name: make for kind in KINDS.values() for name, make in kind.items()}
FLOWER: dict[str, Callable[..., Any]] = {
    name: value
    for name in flower.__all__
    if isinstance(value := getattr(flower, name), type) and issubclass(value, flower.FedAvg)
}
LINK = re.compile(r"https?://[^\s,;)]+")
OPTIONS = "further options of hybrid()"


def describe() -> list[dict[str, Any]]:
    """What there is: ``kind``, ``name``, ``summary``, ``parameters`` (name to default), ``paper`` (or None).

    A default is the text of a spec; a parameter without one has None.
    """
    found = []
    for kind, members in KINDS.items():
        for name, make in members.items():
            text = inspect.getdoc(make) or ""
            module = inspect.getmodule(make)
            link = LINK.search(text) or LINK.search((module and module.__doc__) or "")
            parameters = _parameters(name, make)
            entry: dict[str, Any] = {"kind": kind, "name": name, "summary": text.partition("\n")[0].replace("``", "")}
            found.append(entry | {"parameters": parameters, "paper": link.group(0) if link else None})
    return found


def _parameters(name: str, make: Callable[..., Any]) -> dict[str, str | None]:
    found = inspect.signature(Settings if name == "hybrid" else make).parameters.values()
    # a factory's default is an object that the signature does not show
    own = {"run_name", "run_dir", "resume", "facts"} if name == "hybrid" else set()
    return {
        p.name: None if p.default is p.empty else _text(p.default)
        for p in found
        if p.kind is not p.VAR_KEYWORD and p.name not in own
    }


def _text(default: object) -> str:
    return "the usual" if "factory" in repr(default) else repr(default)
