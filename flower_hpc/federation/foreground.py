"""Keep a federation as this very process: for containers and service managers, which watch it."""

import os
import sys
from typing import NoReturn

from ..errors import ConfigError, FederationError
from .daemon import FOREGROUND
from .desired import Saved
from .federation import Federation
from .starting import request, stop_wanted
from .state import CONTROLLER_LOCK, StateDir


def foreground(federation: Federation) -> NoReturn:
    """Become the controller; it ends by a signal, and nodes beyond this machine go on then.

    Raises
    ------
    ConfigError, FederationError
        As :meth:`Federation.up`; FederationError too where it is up already.
    """
    federation.check()
    state = StateDir(federation.state_dir)
    state.create()
    wish(state, federation)
    sys.stdout.flush()
    os.chdir(state.path)
    command = [sys.executable, "-m", f"{__package__}.daemon", str(state.path), FOREGROUND]
    os.execv(sys.executable, command)


def wish(state: StateDir, federation: Federation) -> None:
    """Write down what shall be; what was wished for meanwhile, such as by `scale`, outlives a new start."""
    with state.cli_lock():
        if state.held(CONTROLLER_LOCK):
            raise FederationError(f"federation {federation.name} is up already")
        try:
            saved = Saved.read(state)
        except (FederationError, ConfigError):
            saved = None
        if saved is not None and saved.config == federation.config and not stop_wanted(state):
            state.status.unlink(missing_ok=True)
        else:
            request(state, federation.config)
