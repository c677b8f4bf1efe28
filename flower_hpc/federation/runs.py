"""Runs on a federation: submit an app under a run name, ask how it is, stop it."""

import fcntl
import json
import re
import secrets
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError, FederationError
from ..telemetry.events import FILE as EVENTS
from ..telemetry.interruption import NOTE
from ..telemetry.report import RESULT
from ..telemetry.runlock import LOCK
from .flwr_cli import flwr
from .state import write_json

REQUEST = "request.json"

Scalar = bool | int | float | str
RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class App:
    """A Flower App's folder and what its pyproject.toml says."""

    path: Path
    name: str
    config: Mapping[str, Scalar]
    check: str | None = None
    """``module:function`` that judges a run config, from ``[tool.flower-hpc]``."""
    components: Mapping[str, str] = field(default_factory=dict)
    """``serverapp`` and ``clientapp``, each as ``module:attribute``."""

    @classmethod
    def read(cls, path: Path) -> "App":
        """Read an app's folder.

        Raises
        ------
        ConfigError
            No Flower App there.
        """
        try:
            project = tomllib.loads((path / "pyproject.toml").read_text(encoding="utf-8"))
            app = project["tool"]["flwr"]["app"]
            name = project["project"]["name"]
        except FileNotFoundError as error:
            raise ConfigError(f"app must be a folder with a pyproject.toml, got {str(path)!r}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path / 'pyproject.toml'}: {error}") from error
        except (KeyError, TypeError) as error:
            raise ConfigError(f"{path / 'pyproject.toml'} describes no Flower App: no {error}") from error
        check = project["tool"].get("flower-hpc", {}).get("check")
        parts = {str(key): str(value) for key, value in flat(app.get("components", {})).items()}
        return cls(path.resolve(), str(name), flat(app.get("config", {})), check, parts)

    def configured(self, overrides: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """The run config with ``overrides``; ConfigError for a key that the app lacks or a wrong type."""
        for key, value in overrides.items():
            if key not in self.config:
                known = ", ".join(sorted(self.config)) or "none"
                raise ConfigError(f"run config: {self.name} has no key {key!r}, known are {known}")
            default = self.config[key]
            fits = type(value) is type(default) or (type(default) is float and type(value) is int)
            if not fits:
                kind = type(default).__name__
                raise ConfigError(f"run config: {key} must be of type {kind}, got {value!r}")
        return dict(self.config) | dict(overrides)


@dataclass(frozen=True)
class Submitted:
    """A run that the SuperLink has taken."""

    run_id: int
    name: str
    folder: Path
    read_from: int = 0
    """Where this attempt's events begin in the run's file, in bytes."""


def parse_overrides(pairs: list[str]) -> dict[str, Scalar]:
    """``key=value`` strings as a run config; values are TOML, and bare words are strings."""
    found: dict[str, Scalar] = {}
    for pair in pairs:
        key, equals, text = (part.strip() for part in pair.partition("="))
        if not equals or not key:
            raise ConfigError(f"run config must be key=value, got {pair!r}")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        if not isinstance(value, bool | int | float | str):
            raise ConfigError(f"run config: {key} must be a number, a string or true/false, got {text!r}")
        found[key] = value
    return found


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Scalar]:
    """Nested tables with dotted keys, as Flower reads them."""
    found: dict[str, Scalar] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def new_name(app: str) -> str:
    """A run name that no other run has: the app's, the time, and a few random digits."""
    return f"{app}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def check_name(state_dir: Path, name: str) -> None:
    """Refuse a run name that is taken or no file name (ConfigError)."""
    if not RUN_NAME.fullmatch(name):
        raise ConfigError(f"run name must be letters, digits, '.', '_' or '-', at most 100, got {name!r}")
    folder = state_dir / "runs" / name
    if folder.exists():
        raise ConfigError(f"run name {name!r} is taken: {folder} exists")


def submit(
    state_dir: Path,
    connection: str,
    app: App,
    overrides: Mapping[str, Scalar],
    *,
    name: str,
    strategy: str | None,
    nodes: int,
    resume: Path | None = None,
) -> Submitted:
    """Hand an app to the federation's SuperLink; parameters and errors as those of :func:`begin`.

    Raises
    ------
    FederationError
        The SuperLink refuses, or cannot be reached.
    """

    def start(config: Path) -> int:
        args = ["run", str(app.path), connection]
        if overrides:
            args += ["--run-config", str(config)]
        try:
            return int(flwr(state_dir, *args)["run-id"])
        except (KeyError, ValueError) as error:
            raise FederationError(f"flwr run gave no run id: {error}") from error

    return begin(
        state_dir, connection, app, overrides, start, name=name, strategy=strategy, nodes=nodes, resume=resume
    )


def begin(
    state_dir: Path,
    connection: str,
    app: App,
    overrides: Mapping[str, Scalar],
    start: Callable[[Path], int],
    *,
    name: str,
    strategy: str | None,
    nodes: int,
    resume: Path | None = None,
) -> Submitted:
    """Make a run's folder, start it, and say for its ServerApp what it is called and how it is to run.

    The request file that says so is named after Flower's run id, which is known only once it has started:
    until it is there, a marker makes the ServerApp wait for it.

    Parameters
    ----------
    connection : str
        Where it runs.
    start : callable
        Starts it with a file of overrides; returns its run id.
    resume : Path, optional
        Folder of the run that goes on, perhaps in another federation's state; default: a new run.

    Raises
    ------
    ConfigError
        A run name that is taken or no file name.
    """
    requests = state_dir / "requests"
    requests.mkdir(parents=True, exist_ok=True)
    if resume is None:
        check_name(state_dir, name)
        folder = state_dir / "runs" / name
        folder.mkdir(parents=True)
    else:
        folder = resume
        for file in (RESULT, NOTE):
            (folder / file).unlink(missing_ok=True)  # of the attempt that ended
    events = folder / EVENTS
    read_from = events.stat().st_size if events.exists() else 0
    config = folder / "run-config.toml"
    config.write_text("".join(f"{json.dumps(k)} = {json.dumps(v)}\n" for k, v in overrides.items()))
    marker = requests / f"{name}.submitting"
    marker.touch()
    try:
        run_id = start(config)
        request = {"run": name, "run_dir": str(folder), "strategy": strategy, "nodes": nodes}
        write_json(requests / f"{run_id}.json", {**request, "resume": resume is not None})
        again = {"app": str(app.path), "overrides": dict(overrides), "run_id": run_id}
        write_json(folder / REQUEST, {**request, **again, "federation": connection})
    finally:
        marker.unlink(missing_ok=True)
    return Submitted(run_id, name, folder, read_from)


def find_run(name: str, home: Path) -> Path:
    """The folder of a run, whichever federation it ran on.

    Raises
    ------
    ConfigError
        No such run, one of several federations, or one that was never submitted.
    """
    found = sorted(home.glob(f"*/runs/{name}")) if RUN_NAME.fullmatch(name) else []
    if not found:
        known = sorted((p for p in home.glob("*/runs/*")), key=lambda p: -p.stat().st_mtime)
        words = ", ".join(p.name for p in known[:5]) or "none"
        raise ConfigError(f"--resume: no run {name[:100]!r} in {home}; the latest are: {words}")
    if len(found) > 1:
        raise ConfigError(f"--resume: several runs are called {name!r}: {', '.join(map(str, found))}")
    if not (found[0] / REQUEST).exists():
        raise ConfigError(f"--resume: {found[0]} has no {REQUEST}: it was never submitted")
    return found[0]


def is_running(folder: Path) -> bool:
    """Whether a living process works on a run: it holds the lock in the run's folder."""
    try:
        with (folder / LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def state_of(state_dir: Path, connection: str, run_id: int) -> tuple[str, str]:
    """Flower's words for a run: its status, such as ``finished:failed``, and the details."""
    said = flwr(state_dir, "list", connection, "--run-id", str(run_id))
    for run in said.get("runs", []):
        if str(run.get("run-id")) == str(run_id):
            details = run.get("status-details") or run.get("details") or ""
            return str(run.get("status", "unknown")), str(details)
    raise FederationError(f"the SuperLink does not know run {run_id}")


def stop(state_dir: Path, connection: str, run_id: int) -> None:
    """Stop a run; nodes finish what they work on, since Flower cannot cancel it."""
    flwr(state_dir, "stop", str(run_id), connection)
