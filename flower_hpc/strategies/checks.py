"""Refusals that the policies share; each is one line: what, what is allowed, which value."""

import math

from ..errors import ConfigError


def is_number(value: object) -> bool:
    """An int or a float that a float can hold, but no bool."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or abs(value) < 2**1023


def number(what: str, value: object, least: float = -math.inf, most: float = math.inf) -> None:
    """A finite number in [least, most]."""
    if not is_number(value) or not math.isfinite(value) or not least <= value <= most:  # type: ignore[arg-type,operator]
        raise ConfigError(f"{what} must be {_range('a number', least, most)}, got {value!r}")


def positive(what: str, value: object, most: float = math.inf) -> None:
    """A finite number in (0, most]."""
    if not is_number(value) or not 0 < value <= most or value == math.inf:  # type: ignore[operator]
        words = "a number > 0" if most == math.inf else f"in (0, {most:g}]"
        raise ConfigError(f"{what} must be {words}, got {value!r}")


def whole(what: str, value: object, least: int = 1) -> None:
    """A whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{what} must be a whole number >= {least}, got {value!r}")


def flag(what: str, value: object) -> None:
    """True or False."""
    if not isinstance(value, bool):
        raise ConfigError(f"{what} must be true or false, got {value!r}")


def _range(kind: str, least: float, most: float) -> str:
    if most == math.inf:
        return kind if least == -math.inf else f"{kind} >= {least:g}"
    return f"{kind} in [{least:g}, {most:g}]"
