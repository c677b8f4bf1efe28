"""Which nodes? A condition over what is known of a node, such as ``site == "hpc" and gpu_mem_gb >= 16``.

Unknown facts follow SQL: a comparison with one is neither true nor false, ``not`` leaves it so, and a node
whose answer stays unknown does not match. Text is parsed, never evaluated as Python.
"""

import ast
import difflib
import operator
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from ..errors import ConfigError

FIELDS = (
    "name",
    "site",
    "cores",
    "memory_gb",
    "free_memory_gb",
    "gpus",
    "gpu_model",
    "gpu_mem_gb",
    "gflops",
    "round_trip_s",
    "down_mb_s",
    "up_mb_s",
)
LABEL = "label_"
MAX_LENGTH, MAX_DEPTH = 1000, 20
ALLOWED = "and, or, not, == != < <= > >=, in, names, text, numbers, True, False, lists, parentheses"
_ORDER: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


@dataclass(frozen=True)
class Where:
    """A condition on nodes; two are equal if their texts are.

    Parameters
    ----------
    text : str
        Comparisons of facts (:data:`FIELDS`, ``label_<anything>``) with text, numbers, True and False,
        joined by ``and``, ``or``, ``not``; ``in`` takes a list, or text to search in. At most 1000
        characters and 20 levels. A label that is True or False may stand alone.

    Raises
    ------
    ConfigError
        Anything else; the message names the part.
    """

    text: str
    _tree: ast.expr = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_tree", _Checker(self.text).tree)

    @property
    def needs(self) -> frozenset[str]:
        """The facts that the condition mentions."""
        return frozenset(node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name))

    def matches(self, facts: Mapping[str, object]) -> bool:
        """True if the facts of a node are known to satisfy the condition; None and NaN are unknown facts."""
        return _truth(self._tree, facts) is True


class _Checker:
    """Parses and refuses: after it, evaluation cannot fail."""

    def __init__(self, text: str) -> None:
        if not isinstance(text, str) or not text.strip():
            raise ConfigError(f'where must be a condition such as site == "hpc", got {text!r}')
        if len(text) > MAX_LENGTH:
            raise ConfigError(f"where must be at most {MAX_LENGTH} characters, got {len(text)}")
        self._text = text.replace("\n", " ").strip()  # a condition may be written over several lines of YAML
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Python's advice on what is refused below
                self.tree = ast.parse(self._text, mode="eval").body
        except SyntaxError as error:
            at = f" at character {error.offset}" if error.offset else ""
            raise ConfigError(
                f"where has an error{at} of {_short(self._text)!r}: {error.msg}; allowed are {ALLOWED}"
            ) from None
        except (ValueError, RecursionError, MemoryError) as error:
            raise ConfigError(f"where cannot be read: {error or 'nested too deeply'}") from None
        self._condition(self.tree, 0)

    def _condition(self, node: ast.expr, depth: int) -> None:
        if depth >= MAX_DEPTH:
            raise ConfigError(f"where must be nested at most {MAX_DEPTH} levels deep")
        match node:
            case ast.BoolOp():
                for value in node.values:
                    self._condition(value, depth + 1)
            case ast.UnaryOp(op=ast.Not()):
                self._condition(node.operand, depth + 1)
            case ast.Compare():
                self._value(node.left)
                for op, right in zip(node.ops, node.comparators, strict=True):
                    self._right(op, right, node)
            case ast.Constant(value=bool()):
                pass
            case ast.Name() if node.id.startswith(LABEL):
                self._value(node)
            case ast.Name():
                self._value(node)
                raise self._refusal(node, "a fact is to be compared with something")
            case _:
                raise self._refusal(node, f"allowed are {ALLOWED}")

    def _right(self, op: ast.cmpop, node: ast.expr, whole: ast.expr) -> None:
        if isinstance(op, ast.In | ast.NotIn):
            if isinstance(node, ast.Tuple | ast.List):
                for item in node.elts:
                    self._value(item)
                    if isinstance(item, ast.Name):
                        raise self._refusal(item, "a list holds text and numbers")
                return
            if not (
                isinstance(node, ast.Name) or (isinstance(node, ast.Constant) and type(node.value) is str)
            ):
                raise self._refusal(node, 'in takes a list such as ("a", "b")')
        elif isinstance(node, ast.Tuple | ast.List):
            raise self._refusal(node, "a list goes with in")
        elif type(op) not in _ORDER:
            raise self._refusal(whole, f"allowed are {ALLOWED}")
        self._value(node)

    def _value(self, node: ast.expr) -> None:
        match node:
            case ast.Name(id=name):
                if name not in FIELDS and not (name.startswith(LABEL) and name != LABEL):
                    near = difflib.get_close_matches(name, FIELDS, 1)
                    hint = f"did you mean {near[0]}? " if near else ""
                    raise self._refusal(node, f"{hint}known are {', '.join(FIELDS)} and {LABEL}<anything>")
            case ast.Constant(value=str() | bool() | int() | float()):
                pass
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                if isinstance(number, bool):
                    raise self._refusal(node, f"allowed are {ALLOWED}")
            case _:
                raise self._refusal(node, f"allowed are {ALLOWED}")

    def _refusal(self, node: ast.expr, why: str) -> ConfigError:
        part = ast.get_source_segment(self._text, node) or self._text
        return ConfigError(f"where cannot use {_short(part)!r}: {why}")


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _truth(node: ast.expr, facts: Mapping[str, object]) -> bool | None:
    match node:
        case ast.BoolOp():
            decides = isinstance(node.op, ast.Or)
            return _joined((_truth(value, facts) for value in node.values), decides)
        case ast.UnaryOp():
            truth = _truth(node.operand, facts)
            return None if truth is None else not truth
        case ast.Compare():
            lefts = [node.left, *node.comparators]
            pairs = zip(lefts, node.ops, node.comparators, strict=False)
            return _joined((_compare(op, left, right, facts) for left, op, right in pairs), False)
    value = _known(node, facts)
    return value if isinstance(value, bool) else None


def _joined(truths: Iterator[bool | None], decides: bool) -> bool | None:
    """Kleene's ``or`` where True decides, his ``and`` where False does."""
    found = list(truths)
    return decides if decides in found else None if None in found else not decides


def _compare(op: ast.cmpop, left: ast.expr, right: ast.expr, facts: Mapping[str, object]) -> bool | None:
    a = _known(left, facts)
    if isinstance(op, ast.In | ast.NotIn):
        within = _within(a, right, facts)
        return None if within is None else within == isinstance(op, ast.In)
    b = _known(right, facts)
    return None if _kind(a) is None or _kind(a) is not _kind(b) else bool(_ORDER[type(op)](a, b))


def _within(a: object, right: ast.expr, facts: Mapping[str, object]) -> bool | None:
    if not isinstance(right, ast.Tuple | ast.List):
        b = _known(right, facts)
        return a in b if isinstance(a, str) and isinstance(b, str) else None
    items = [_known(item, facts) for item in right.elts]
    alike = [b for b in items if _kind(b) is _kind(a)]
    if _kind(a) is None or (items and not alike):
        return None
    return a in alike


def _known(node: ast.expr, facts: Mapping[str, object]) -> object:
    match node:
        case ast.Name(id=name):
            return facts.get(name)
        case ast.UnaryOp(operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.Constant(value=value):
            return value
    return None


def _kind(value: object) -> type | None:
    """Values of one kind can be compared; None for what is unknown."""
    if isinstance(value, bool):
        return bool
    if isinstance(value, str):
        return str
    return Real if isinstance(value, Real) and value == value else None
