"""Flower's own command line, pointed at a federation: the public door for submitting and asking."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from ..errors import FederationError
from ..launchers.filling import PYTHON
from .link import Link
from .state import StateDir

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


def command(state_dir: Path, *args: str) -> tuple[list[str], dict[str, str]]:
    """``flwr ARGS`` as a command and its environment, so that it reaches the federation's SuperLink."""
    state = StateDir(state_dir)
    link = Link.read(state)
    words = [str(Path(sys.executable).parent / "flwr"), *args]
    if link is not None:
        words = [sys.executable if word == PYTHON else word for word in link.inside(words)]
    return words, os.environ | QUIET | {"FLWR_HOME": str(state.flwr)}


def flwr(state_dir: Path, *args: str, timeout_s: float = 120) -> dict[str, Any]:
    """Run ``flwr ARGS --format json`` and return what it says.

    Parameters
    ----------
    state_dir : Path
        The federation's state folder, with the connection in it.
    *args : str
        Subcommand and arguments.
    timeout_s : float
        Default 120 s.

    Raises
    ------
    FederationError
        It failed, timed out, or did not print JSON; with its own words in one line.
    """
    words, env = command(state_dir, *args, "--format", "json")
    try:
        done = _run(words, env, timeout_s)
    except subprocess.TimeoutExpired as error:
        raise FederationError(f"flwr {args[0]} did not answer within {timeout_s:g} s") from error
    except OSError as error:
        raise FederationError(f"flwr cannot be started: {error}") from error
    try:
        said = json.loads(done.stdout[done.stdout.index("{") :])
    except ValueError as error:
        raise FederationError(f"flwr {args[0]} failed: {_last_words(done.stdout + done.stderr)}") from error
    if not isinstance(said, dict) or not said.get("success", False):
        why = said.get("error-message", "") if isinstance(said, dict) else ""
        raise FederationError(f"flwr {args[0]} failed: {_last_words(str(why) or done.stderr)}")
    return said


def log_of(state_dir: Path, connection: str, run_id: int, timeout_s: float = 60) -> str:
    """What a run's ServerApp has logged, which its SuperLink keeps; empty where that cannot be had."""
    words, env = command(state_dir, "log", str(run_id), connection, "--show")
    try:
        done = _run(words, env, timeout_s)
    except (subprocess.TimeoutExpired, OSError):
        return ""
    return COLOUR.sub("", done.stdout) if done.returncode == 0 else ""


def _run(words: list[str], env: dict[str, str], timeout_s: float) -> "subprocess.CompletedProcess[str]":
    # a group of its own: Ctrl-C is for us to handle, not for it to half-handle
    return subprocess.run(
        words,
        env=env,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        start_new_session=True,
        check=False,
    )


def _last_words(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
