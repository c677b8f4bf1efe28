"""Strategies as strings: ``first_k(0.75) | deadline(60)``, ``fedprox(mu=0.1, cutoff=deadline(60))``.

A spec is read as a Python expression and built by hand from a registry of names and from literals; nothing is
evaluated. A cutoff alone means ``hybrid(cutoff=...)``. Names under ``flower.`` are Flower's own strategies.
"""

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any

from flwr.serverapp.strategy import Strategy

from ..compression import Codec
from ..errors import ConfigError, FlowerHpcError
from .arguments import refusal
from .cutoff import Cutoff
from .hybrid import HybridStrategy
from .inner import minimum_nodes
from .options import Settings
from .registry import FLOWER, KINDS, NAMES, NOT_SPEC, STRATEGIES

LONGEST_ECHO = 120
WORDY = {name for kind in ("codec", "compression", "dropout") for name in KINDS[kind]}
LITERALS = (ast.Constant, ast.BinOp, ast.UnaryOp, ast.Dict, ast.List, ast.Tuple)
KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


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
        raise ConfigError(f"strategy {_short(spec)!r}: cannot be read at column {error.offset}") from error
    except (RecursionError, MemoryError) as error:
        raise ConfigError(f"strategy {_short(spec)!r}: too deeply nested") from error
    if isinstance(value, Cutoff):
        return HybridStrategy(cutoff=value)
    if not isinstance(value, Strategy):
        raise ConfigError(
            f"strategy {_short(spec)!r} is no strategy or cutoff; try one of {', '.join(STRATEGIES)}"
        )
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


def compose(spec: str, settings: Sequence[str]) -> str:
    """A spec with ``key=value`` settings added to its outermost call: what ``--set`` does.

    Parameters
    ----------
    spec : str
        A name, a call, or a cutoff alone; empty means ``hybrid``.
    settings : sequence of str
        Such as ``k=10`` or ``staleness=hinge(a=5)``; a bare word that is no name is a text. Each replaces
        what the spec says for its key.

    Raises
    ------
    ConfigError
        Not ``key=value``, or a value that cannot be read.
    """
    if not settings:
        return spec
    try:
        tree = ast.parse(spec.strip() or "hybrid", mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"strategy {_short(spec)!r}: cannot be read") from error
    if isinstance(tree, ast.BinOp) or _name_of(tree) in NAMES.keys() - STRATEGIES.keys():
        tree = ast.Call(ast.Name("hybrid"), [], [ast.keyword("cutoff", tree)])
    return _with(tree, settings)


def with_default(spec: str, key: str, value: object) -> str:
    """A spec with one more setting where it is ours and does not have it: a federation's ``compression:``."""
    try:
        tree = ast.parse(spec.strip() or "hybrid", mode="eval").body
    except (SyntaxError, ValueError):
        return spec  # for `parse` to refuse
    if _name_of(tree) not in NAMES and not isinstance(tree, ast.BinOp):
        return spec  # Flower's own, or unknown
    if isinstance(tree, ast.Call) and any(k.arg == key for k in tree.keywords):
        return spec
    return compose(spec, [f"{key}={_spec_of(value)}"])


def from_mapping(block: object, *, inner: bool = False) -> str:
    """The spec of a ``strategy:`` block: a text, or a mapping with ``name`` and settings.

    ``inner`` is for a block within a block, which describes a policy.

    Raises
    ------
    ConfigError
        Neither, or a value that is neither a plain value nor such a block again.
    """
    if isinstance(block, str):
        return block
    if not isinstance(block, Mapping) or not isinstance(block.get("name"), str):
        raise ConfigError(f"strategy must be a text or a mapping with a name, got {_short(repr(block))}")
    try:
        settings = [f"{key}={_spec_of(value)}" for key, value in block.items() if key != "name"]
    except RecursionError as error:
        raise ConfigError("strategy: too deeply nested") from error
    if inner:
        return _with(_value(block["name"]), settings)
    return compose(block["name"], settings)


def _spec_of(value: object) -> str:
    if isinstance(value, Mapping) and "name" in value:
        return from_mapping(value, inner=True)
    if isinstance(value, str):
        return value if value.strip() else repr(value)
    if value is None or isinstance(value, bool | int | float | list | dict):
        return repr(value)
    raise ConfigError(f"strategy: values must be numbers, texts or blocks, got {_short(repr(value))}")


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_ECHO else f"{text[:LONGEST_ECHO]}..."


def _with(tree: ast.expr, settings: Sequence[str]) -> str:
    call = tree if isinstance(tree, ast.Call) else ast.Call(tree, [], [])
    for setting in settings:
        key, equals, text = (part.strip() for part in setting.partition("="))
        if not equals or not KEY.fullmatch(key) or not text:
            raise ConfigError(f"--set must be key=value, got {_short(setting)!r}")
        call.keywords = [k for k in call.keywords if k.arg != key] + [ast.keyword(key, _value(text))]
    return ast.unparse(ast.fix_missing_locations(call))


def _value(text: str) -> ast.expr:
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError):
        return ast.Constant(text)
    name = _name_of(tree)
    plain = {"true": True, "false": False, "none": None, "null": None}
    if isinstance(tree, ast.Name) and text.lower() in plain:
        return ast.Constant(plain[text.lower()])
    known = name in NAMES or name.startswith("flower.")
    # criteria such as `site == "hpc"`, and words, are texts
    return tree if known or isinstance(tree, LITERALS) else ast.Constant(text)


def _name_of(tree: ast.expr) -> str:
    found = tree.func if isinstance(tree, ast.Call) else tree
    return ast.unparse(found) if isinstance(found, ast.Name | ast.Attribute) else ""


def _build(node: ast.expr, spec: str) -> Any:
    match node:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            first, second = _build(left, spec), _build(right, spec)
            if not (isinstance(first, Cutoff) and isinstance(second, Cutoff)):
                raise ConfigError(f"strategy {_short(spec)!r}: only cutoffs join with |")
            return first | second
        case ast.BinOp(left=left, op=ast.RShift(), right=right):
            first, second = _build(left, spec), _build(right, spec)
            if not (isinstance(first, Codec) and isinstance(second, Codec)):
                raise ConfigError(f"strategy {_short(spec)!r}: only codecs join with >>")
            return _joined(first, second, spec)
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
        raise ConfigError(
            f"strategy {_short(spec)!r}: {_short(part)!r} is neither a literal nor a known name"
        ) from error


def _joined(first: Codec, second: Codec, spec: str) -> Codec:
    try:
        return first >> second
    except ConfigError as error:
        raise ConfigError(f"strategy {_short(spec)!r}: {error}") from error


def _word(node: ast.expr, spec: str) -> Any:
    """As :func:`_build`, but a name that is none of ours is a text: ``int8(rounding=stochastic)``."""
    if isinstance(node, ast.Name) and node.id not in NAMES:
        return {"true": True, "false": False}.get(node.id, node.id)
    return _build(node, spec)


def _call(func: ast.expr, args: list[ast.expr], keywords: list[ast.keyword], spec: str) -> Any:
    name = ast.unparse(func)
    known = FLOWER if name.startswith("flower.") else NAMES
    found = known.get(name.removeprefix("flower."))
    if found is None:
        raise ConfigError(
            f"strategy {_short(spec)!r}: unknown name {_short(name)!r}, known are {', '.join(sorted(known))}"
        )
    read = _word if name in WORDY else _build
    values = [read(arg, spec) for arg in args]
    named = {k.arg: read(k.value, spec) for k in keywords if k.arg is not None}
    if any(k.arg is None for k in keywords):
        raise ConfigError(f"strategy {_short(spec)!r}: ** is not allowed")
    if len(named) != len(keywords):
        raise ConfigError(f"strategy {_short(spec)!r}: {name} is given a parameter twice")
    if name in STRATEGIES and (own := NOT_SPEC & named.keys()):
        raise ConfigError(
            f"strategy {_short(spec)!r}: {', '.join(sorted(own))} is the run's own, no part of a strategy"
        )
    if wrong := refusal(name, found, values, named):
        raise ConfigError(f"strategy {_short(spec)!r}: {wrong}")
    try:
        return found(*values, **named)
    except FlowerHpcError as error:
        raise ConfigError(f"strategy {_short(spec)!r}: {error}") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"strategy {_short(spec)!r}: {name}: {error}") from error
