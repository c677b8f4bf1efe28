"""Flower Apps that come with the package: folders for ``flwr run``, each with its own pyproject.toml."""

from pathlib import Path

from ..errors import ConfigError

_HERE = Path(__file__).parent

NAMES = tuple(sorted(p.parent.name for p in _HERE.glob("*/pyproject.toml")))
"""The shipped apps."""


def path(name: str) -> Path:
    """The folder of a shipped app, as ``flwr run`` takes it.

    Raises
    ------
    ConfigError
        No such app.
    """
    if name not in NAMES:
        raise ConfigError(f"app must be one of {', '.join(NAMES)}, got {name!r}")
    return _HERE / name
