"""Stop a federation from any shell, whatever state its controller is in."""

import os
import shutil
import signal
import time

from ..errors import FederationError
from ..launchers import Launcher
from . import leftovers
from .desired import Desired, Saved
from .door import take_down
from .launching import Launchers, end_offloaded
from .scaler import MEMORY
from .state import CONTROLLER_LOCK, OWNER_LOCK, StateDir

POLL_S = 0.05
SWEEP_S = 45.0
KEPT = ("logs", "runs", "requests", "cli.lock", OWNER_LOCK, CONTROLLER_LOCK)
"""What stays of an ephemeral federation."""


def stop(state: StateDir, timeout_s: float) -> bool:
    """Ask the controller to stop, kill it after ``timeout_s`` seconds, end what is left; was there any?

    The caller holds the command lock, so nothing is started meanwhile.
    """
    was_up = state.held(CONTROLLER_LOCK)
    if was_up:
        _ask(state)
        if not _gone(state, timeout_s):
            _kill(state)
    left = leftovers.end(state) + _end_jobs(state)
    state.status.unlink(missing_ok=True)
    (state.elastic / MEMORY).unlink(missing_ok=True)
    return was_up or left > 0


def forget(state: StateDir) -> None:
    """Remove all but logs and runs: keys, registrations, the database."""
    for path in state.path.iterdir():
        if path.name in KEPT:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _end_jobs(state: StateDir) -> int:
    # those of a controller that was killed, or that its batch system did not obey
    saved = Saved.read(state) if state.config.exists() else None
    if saved is None:
        return 0
    config, launchers = saved.config, Launchers(state)
    take_down(config, state)
    swept = {f"sites.{name}": launchers.of(config, name) for name in config.sites}
    if config.link_elsewhere:
        swept["superlink"] = launchers.superlink(config).keeper.launcher
    count, left = 0, {}
    for name, launcher in swept.items():
        ended, remaining = _sweep(launcher)
        count += ended + remaining
        if remaining:
            left[name] = f"{remaining} ({getattr(launcher, 'trouble', '') or 'they do not end'})"
    left |= {f"sites.{name}": words for name, words in launchers.take_down().items()}
    launchers.close()
    end_offloaded(config, state)
    if left:
        words = ", ".join(f"{name}: {why}" for name, why in left.items())
        raise FederationError(f"jobs of federation {config.name} remain: {words}; run `down` again")
    return count


def _sweep(launcher: Launcher) -> tuple[int, int]:
    """How many jobs of an earlier launcher it has ended, and how many it could not."""
    found = launcher.adopt()
    for one in found.values():
        launcher.cancel(one.job_id)
    deadline, left = time.monotonic() + SWEEP_S, list(found.values())
    while left and time.monotonic() < deadline:
        time.sleep(POLL_S)
        left = [one for one in left if not launcher.status(one.job_id).state.final]
    for one in found.values():
        launcher.cancel(one.job_id, force=True)
    return len(found) - len(left), len(left)


def _ask(state: StateDir) -> None:
    try:
        old = Desired.read(state)
    except FederationError:  # damaged: this wish needs nothing of it
        old = Desired(generation=int(time.time()))
    old.model_copy(update={"generation": old.generation + 1, "stop": True}).write(state)


def _gone(state: StateDir, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while state.held(CONTROLLER_LOCK):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def _kill(state: StateDir) -> None:
    # written by who holds the lock, right after it took it
    words = (state.path / CONTROLLER_LOCK).read_text().strip()
    if words.isdigit() and state.held(CONTROLLER_LOCK):
        os.kill(int(words), signal.SIGKILL)
        _gone(state, 5)
