"""Runs on a federation: submit an app under a run name, ask how it is, stop it."""

import json
import re
import secrets
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, FederationError
from .flwr_cli import flwr

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
        return cls(path.resolve(), str(name), flat(app.get("config", {})), check)

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
) -> Submitted:
    """Hand an app to the federation's SuperLink.

    The request file that says the run's name, folder and strategy is named after Flower's run id, which is
    known only afterwards: until it is there, a marker makes the ServerApp wait for it.

    Raises
    ------
    ConfigError
        A run name that is taken or no file name.
    FederationError
        The SuperLink refuses, or cannot be reached.
    """
    check_name(state_dir, name)
    folder, requests = state_dir / "runs" / name, state_dir / "requests"
    requests.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True)
    config = folder / "run-config.toml"
    config.write_text("".join(f"{json.dumps(k)} = {json.dumps(v)}\n" for k, v in overrides.items()))
    marker = requests / f"{name}.submitting"
    marker.touch()
    try:
        args = ["run", str(app.path), connection]
        if overrides:
            args += ["--run-config", str(config)]
        said = flwr(state_dir / "flwr", *args)
        run_id = int(said["run-id"])
        request = {"run": name, "run_dir": str(folder), "strategy": strategy, "nodes": nodes}
        part = requests / f"{run_id}.json.part"
        part.write_text(json.dumps(request))
        part.replace(requests / f"{run_id}.json")
    except (KeyError, ValueError) as error:
        raise FederationError(f"flwr run gave no run id: {error}") from error
    finally:
        marker.unlink(missing_ok=True)
    return Submitted(run_id, name, folder)


def state_of(state_dir: Path, connection: str, run_id: int) -> tuple[str, str]:
    """Flower's words for a run: its status, such as ``finished:failed``, and the details."""
    said = flwr(state_dir / "flwr", "list", connection, "--run-id", str(run_id))
    for run in said.get("runs", []):
        if str(run.get("run-id")) == str(run_id):
            details = run.get("status-details") or run.get("details") or ""
            return str(run.get("status", "unknown")), str(details)
    raise FederationError(f"the SuperLink does not know run {run_id}")


def stop(state_dir: Path, connection: str, run_id: int) -> None:
    """Stop a run; nodes finish what they work on, since Flower cannot cancel it."""
    flwr(state_dir / "flwr", "stop", str(run_id), connection)
