"""Which federation a word means: a file, a name, or the one that is up."""

import os
from pathlib import Path

from ..errors import ConfigError
from .config import FederationConfig
from .desired import Saved
from .state import CONTROLLER_LOCK, StateDir, home

DEFAULT_FILE = "federation.yaml"


def config_of(which: str | Path) -> tuple[FederationConfig, bool]:
    """The config that a file or a name means, and whether that federation is ephemeral.

    Raises
    ------
    ConfigError
        No such file or name, or something is wrong in the file; one line.
    """
    path = Path(which)
    looks_like_a_file = os.sep in str(which) or path.suffix in (".yaml", ".yml")
    if isinstance(which, Path) or looks_like_a_file or path.is_file():
        return FederationConfig.load(path), False
    names = known()
    saved = Saved.read(StateDir(home() / which)) if which in names else None
    if saved is None:
        words = ", ".join(names) or "none yet"
        raise ConfigError(f"federation must be a file or the name of one of: {words}; got {which!r}")
    return saved.config, saved.ephemeral


def the_one_that_is_up() -> str:
    """The name of the only federation that is up; ConfigError where there is none, or more than one."""
    up = [name for name in known() if StateDir(home() / name).held(CONTROLLER_LOCK)]
    if len(up) == 1:
        return up[0]
    found = f"{len(up)} are up: {', '.join(up)}" if up else "none is up"
    raise ConfigError(f"which federation? no {DEFAULT_FILE} here, and {found}; give a file or a name")


def known() -> list[str]:
    """Names of the federations that were up once."""
    return sorted(path.parent.name for path in home().glob("*/federation.json"))
