"""Strategies as strings: ``first_k(0.75) | deadline(60)``, ``fedprox(mu=0.1, cutoff=deadline(60))``.

A spec is read as a Python expression and built by hand from a registry of names and from literals; nothing is
evaluated. A cutoff alone means ``hybrid(cutoff=...)``. Names under ``flower.`` are Flower's own strategies.
"""

import ast
from collections.abc import Callable
from typing import Any

from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Strategy

from ..errors import ConfigError, FlowerHpcError
from .cutoff import Cutoff, Deadline, FirstK, WaitForAll
from .fedavg import FedAvg
from .fedprox import FedProx
from .hybrid import HybridStrategy
from .inner import minimum_nodes
from .options import Settings
from .selection import RandomSelection
from .staleness import Discard, Polynomial
from .weighting import ByExamples

STRATEGIES: dict[str, Callable[..., Any]] = {
    "hybrid": HybridStrategy,
    "fedavg": FedAvg,
    "fedprox": FedProx,
}
POLICIES: dict[str, Callable[..., Any]] = {
    "wait_for_all": WaitForAll,
    "deadline": Deadline,
    "first_k": FirstK,
    "discard": Discard,
    "polynomial": Polynomial,
    "random_selection": RandomSelection,
    "by_examples": ByExamples,
}
NAMES = STRATEGIES | POLICIES
FLOWER: dict[str, Callable[..., Any]] = {
    name: value
    for name in flower.__all__
    if isinstance(value := getattr(flower, name), type) and issubclass(value, flower.FedAvg)
}


def parse(spec: str) -> Strategy:
    """The strategy that a spec describes.

    Parameters
    ----------
    spec : str
        For example ``first_k(0.75) | deadline(60)`` or ``hybrid(inner=flower.FedAdam(eta=0.1),
        staleness=discard())``. Empty means ``hybrid()``.

    Raises
    ------
    ConfigError
        In one line: an unknown name, a wrong argument, anything that is not a call of a known name.
    """
    if not spec.strip():
        return HybridStrategy()
    try:
        tree = ast.parse(spec.strip(), mode="eval")
        value = _build(tree.body, spec)
    except SyntaxError as error:
        raise ConfigError(f"strategy {spec!r}: cannot be read at column {error.offset}") from error
    except (RecursionError, MemoryError) as error:
        raise ConfigError(f"strategy {spec[:40]!r}...: too deeply nested") from error
    if isinstance(value, Cutoff):
        return HybridStrategy(cutoff=value)
    if not isinstance(value, Strategy):
        raise ConfigError(f"strategy {spec!r} is no strategy or cutoff; try one of {', '.join(STRATEGIES)}")
    return value


def check(spec: str, num_nodes: int | None = None) -> Strategy:
    """Parse, and refuse what cannot work with ``num_nodes`` nodes."""
    strategy = parse(spec)
    if num_nodes is not None and isinstance(strategy, HybridStrategy):
        strategy.settings.cutoff.check(num_nodes)
        fewest = strategy.settings.min_nodes if strategy.settings.min_nodes != Settings.min_nodes else 1
        if strategy.settings.inner is not None:
            fewest = max(fewest, minimum_nodes(strategy.settings.inner, "train"))
        if fewest > num_nodes:
            raise ConfigError(f"strategy needs at least {fewest} nodes, the federation has {num_nodes}")
    return strategy


def _build(node: ast.expr, spec: str) -> Any:
    match node:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            first, second = _build(left, spec), _build(right, spec)
            if not (isinstance(first, Cutoff) and isinstance(second, Cutoff)):
                raise ConfigError(f"strategy {spec!r}: only cutoffs join with |")
            return first | second
        case ast.BinOp(left=ast.Constant(value=int(a)), op=ast.Div(), right=ast.Constant(value=int(b))) if b:
            return a / b  # first_k(2/3) is what people write
        case ast.Call(func=func, args=args, keywords=keywords):
            return _call(func, args, keywords, spec)
        case ast.Name() | ast.Attribute():  # `discard` for `discard()`
            return _call(node, [], [], spec)
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        part = ast.unparse(node)
        raise ConfigError(f"strategy {spec!r}: {part!r} is neither a literal nor a known name") from error


def _call(func: ast.expr, args: list[ast.expr], keywords: list[ast.keyword], spec: str) -> Any:
    name = ast.unparse(func)
    known = FLOWER if name.startswith("flower.") else NAMES
    found = known.get(name.removeprefix("flower."))
    if found is None:
        raise ConfigError(f"strategy {spec!r}: unknown name {name!r}, known are {', '.join(sorted(known))}")
    values = [_build(arg, spec) for arg in args]
    named = {k.arg: _build(k.value, spec) for k in keywords if k.arg is not None}
    if len(named) != len(keywords):
        raise ConfigError(f"strategy {spec!r}: ** is not allowed")
    try:
        return found(*values, **named)
    except FlowerHpcError as error:
        raise ConfigError(f"strategy {spec!r}: {error}") from error
    except (TypeError, ValueError) as error:
        words = str(error).replace(".__init__()", "()")
        raise ConfigError(f"strategy {spec!r}: {name}: {words}") from error
