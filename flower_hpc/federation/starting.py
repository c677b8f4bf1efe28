"""Start the controller of a federation, or tell the one that lives what is wished for now."""

import subprocess
import sys
import time

from ..errors import ConfigError, FederationError
from .config import FederationConfig
from .desired import Desired, Saved
from .roster import Roster, roster_for
from .state import CONTROLLER_LOCK, StateDir, read_json

POLL_S = 0.1


def start(state: StateDir, config: FederationConfig, *, ephemeral: bool) -> Desired:
    """Start a controller in the background; returns when it holds its lock, with what it was told."""
    wish = request(state, config, ephemeral=ephemeral)
    launch(state)
    return wish


def request(state: StateDir, config: FederationConfig, *, ephemeral: bool = False) -> Desired:
    """Write down what a controller that starts now shall keep."""
    roster_for(config, Roster.read(state.roster), config.counts)
    _refuse_to_forget(state, config)
    state.status.unlink(missing_ok=True)
    Saved(config=config, ephemeral=ephemeral).write(state)
    try:
        generation = Desired.read(state).generation + 1
    except FederationError:  # a damaged one is replaced; time grows too
        generation = int(time.time())
    wish = Desired(generation=generation, nodes=config.counts)
    wish.write(state)
    return wish


def _refuse_to_forget(state: StateDir, config: FederationConfig) -> None:
    # after a killed controller only the site's own block says how its jobs are ended
    try:
        saved = Saved.read(state)
    except FederationError:
        return
    for name in set(saved.config.sites if saved else ()) - set(config.sites):
        if read_json(state.jobs / f"{name}.json"):
            raise ConfigError(
                f"sites.{name}: is missing, and its jobs still run: take the federation down first"
            )


def launch(state: StateDir, *options: str) -> int:
    """Start the controller; returns its exit code, 0 when it holds its lock and is in the background."""
    with state.log("controller").open("ab") as log:
        command = [sys.executable, "-m", f"{__package__}.daemon", str(state.path), *options]
        return subprocess.run(
            command,
            cwd=state.path,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            check=False,
        ).returncode


def revive(state: StateDir) -> bool:
    """Start the controller of a federation that shall be up, where it has none; whether it has one now."""
    with state.cli_lock():
        if state.held(CONTROLLER_LOCK):
            return True
        if stop_wanted(state) or not state.config.exists():
            return False
        launch(state)
        return state.held(CONTROLLER_LOCK)


def converge(state: StateDir, config: FederationConfig, *, ephemeral: bool) -> Desired:
    """Tell the living controller of a changed config.

    Raises
    ------
    ConfigError
        What differs cannot change while the federation is up.
    """
    saved = Saved.read(state)
    if saved is None:
        raise FederationError(f"{state.config} is missing: take the federation down")
    if ephemeral or saved.ephemeral:
        raise ConfigError(f"name: got {config.name!r}, must be another: that federation is running")
    for what in ("security", "superlink", "gateway"):
        old, new = getattr(saved.config, what), getattr(config, what)
        for field in type(new).model_fields:
            was, now = getattr(old, field), getattr(new, field)
            if was != now:
                raise ConfigError(
                    f"{what}.{field}: got {now!r}, must be {was!r} while federation {config.name} is up: "
                    "take it down first"
                )
    roster_for(config, Roster.read(state.roster), config.counts)
    last = Desired.read(state)
    Saved(config=config).write(state)
    wish = Desired(generation=last.generation + 1, nodes=config.counts)
    wish.write(state)
    return wish


def let_it_stop(state: StateDir, timeout_s: float = 30) -> None:
    """Where another shell is taking the federation down, wait for that, ``timeout_s`` seconds at most."""
    deadline = time.monotonic() + timeout_s
    while state.held(CONTROLLER_LOCK) and stop_wanted(state) and time.monotonic() < deadline:
        time.sleep(POLL_S)


def stop_wanted(state: StateDir) -> bool:
    """Whether the last wish was to take it down."""
    try:
        return Desired.read(state).stop
    except FederationError:
        return False
