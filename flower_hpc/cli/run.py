"""``flower-hpc run``: an app on a federation, followed to its end."""

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import apps
from ..errors import ConfigError
from ..federation import Federation
from ..federation.runs import App, Scalar, check_name, new_name, parse_overrides, submit
from ..telemetry.progress import rounds_table
from .common import ERR, FileOption, Json, bring_up, find, is_folder, print_json, warn
from .follow import follow

STRATEGY, DATA_DIR = "strategy", "data-dir"


def run(
    app: Annotated[
        str, typer.Argument(help="Folder of a Flower App, or the name of a shipped one: benchmark.")
    ],
    federation: FileOption = None,
    nodes: Annotated[
        int | None,
        typer.Option(help="Start a federation of this many nodes on this machine, for this run alone."),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            help="Such as 'first_k(0.75) | deadline(60)' or 'fedprox(mu=0.1)', for apps that take them."
        ),
    ] = None,
    run_config: Annotated[
        list[str] | None,
        typer.Option(
            "--run-config", "-c", metavar="KEY=VALUE", help="Override the app's run config; repeat it."
        ),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder with the data; default $FLOWER_HPC_DATA, else a download.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run; default made of app and time.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the nodes of a new federation.")] = 180,
    json: Json = False,
) -> None:
    """Run APP on a federation and print its rounds.

    Uses the federation that is up; one that is not is brought up for the run and taken down after it.
    """
    flower_app = App.read(_folder(app))
    overrides = parse_overrides(run_config or [])
    if data_dir is not None:
        overrides[DATA_DIR] = str(is_folder(data_dir, "data-dir"))
    if strategy is not None:
        if STRATEGY not in flower_app.config:
            raise ConfigError(
                f"--strategy: {flower_app.name} takes none: its run config has no key 'strategy'"
            )
        overrides[STRATEGY] = strategy
    config = flower_app.configured(overrides)
    if nodes is not None:
        if federation is not None:
            raise ConfigError("--nodes makes a federation of its own; give it or --federation, not both")
        target = Federation.ephemeral(nodes=nodes)
    else:
        target = find(federation)
    check(flower_app, config, target.num_nodes)
    name = name or new_name(flower_app.name)
    check_name(target.state_dir, name)

    was_up = target.is_up()
    try:
        if not was_up:
            warn(target)
            bring_up(target, timeout)
        result = execute(target, flower_app, overrides, name)
    finally:
        if not was_up:
            with ERR.status(f"federation {target.name}: stopping"):
                target.down()
    report(result, json)


def execute(federation: Federation, app: App, overrides: Mapping[str, Scalar], name: str) -> dict[str, Any]:
    """Submit, follow, and return the result with the run's folder in it."""
    submitted = submit(
        federation.state_dir,
        federation.connection,
        app,
        overrides,
        name=name,
        strategy=str(overrides[STRATEGY]) if STRATEGY in overrides else None,
        nodes=federation.num_nodes,
    )
    ERR.print(f"run {submitted.name} (Flower's id {submitted.run_id})", highlight=False)
    return follow(federation, submitted) | {"folder": str(submitted.folder)}


def report(result: dict[str, Any], as_json: bool) -> None:
    """Print the rounds, for people or for scripts."""
    if result["rounds"]:
        ERR.print(rounds_table(result))
    ERR.print(f"run folder: {result['folder']}", highlight=False, soft_wrap=True)
    if as_json:
        print_json(result)


def check(app: App, config: Mapping[str, Scalar], num_nodes: int) -> None:
    """Find what is wrong before anything starts: the strategy, and what the app itself knows."""
    if STRATEGY in config:
        from ..strategies import check as check_strategy  # Flower takes a second to import

        check_strategy(str(config[STRATEGY]), num_nodes)
    if app.check is not None:
        module, _, function = app.check.partition(":")
        sys.path.insert(0, str(app.path))
        try:
            judge = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"{app.path}: its check {app.check!r} cannot be loaded: {error}") from error
        finally:
            sys.path.remove(str(app.path))
        judge(config, num_nodes)


def _folder(app: str) -> Path:
    path = Path(app)
    if path.is_dir():
        return path
    if app in apps.NAMES:
        return apps.path(app)
    shipped = ", ".join(apps.NAMES)
    raise ConfigError(f"app must be a folder of a Flower App or one of: {shipped}; got {app!r}")
