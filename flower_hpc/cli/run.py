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
from .blame import check_sources
from .common import ERR, FileOption, bring_up, find, is_folder, print_json, warn
from .follow import follow
from .options import (
    AppArgument,
    DataDirOption,
    Json,
    NameOption,
    ResumeOption,
    RunConfigOption,
    SettingsOption,
    StrategyOption,
)
from .past import Past

STRATEGY, DATA_DIR = "strategy", "data-dir"


def run(
    app: AppArgument = None,
    federation: FileOption = None,
    nodes: Annotated[
        int | None,
        typer.Option(help="Start a federation of this many nodes on this machine, for this run alone."),
    ] = None,
    strategy: StrategyOption = None,
    settings: SettingsOption = None,
    run_config: RunConfigOption = None,
    data_dir: DataDirOption = None,
    name: NameOption = None,
    resume: ResumeOption = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the nodes of a new federation.")] = 180,
    json: Json = False,
) -> None:
    """Run APP on a federation and print its rounds.

    Uses the federation that is up; one that is not is brought up for the run and taken down after it.
    """
    check_names(app, resume, name)
    if nodes is not None and federation is not None:
        raise ConfigError("--nodes makes a federation of its own; give it or --federation, not both")
    past = Past.find(resume) if resume is not None else None
    flower_app = App.read(folder_of(app) if app is not None else past.app if past else Path())
    target = past.target(federation, nodes) if past else _target(federation, nodes)
    overrides = overridden(
        flower_app, past, strategy, settings or [], run_config or [], data_dir, federation=target
    )
    config = flower_app.configured(overrides)
    check(flower_app, config, target.num_nodes, resume=past.folder if past else None)
    name = past.name if past else name or new_name(flower_app.name)
    if past is None:
        check_name(target.state_dir, name)

    was_up, mine = target.is_up(), None
    try:
        if not was_up:
            target.check()
            warn(target)
            mine = bring_up(target, timeout).generation
        if past is not None:
            past.end(target)
        result = execute(target, flower_app, overrides, name, past.folder if past else None)
    finally:
        if not was_up and mine is not None and target.is_up() and target.status().generation != mine:
            ERR.print(f"federation {target.name} stays: `up` or `scale` was called for it meanwhile")
        elif not was_up:
            with ERR.status(f"federation {target.name}: stopping"):
                target.down()
    report(result, json)


def check_names(app: str | None, resume: str | None, name: str | None) -> None:
    """Refuse a run that is neither new nor one of the past, or both; ConfigError."""
    if app is None and resume is None:
        raise ConfigError("give an APP to run, or --resume RUN to go on with one")
    if app is not None and resume is not None:
        raise ConfigError(f"APP: a run that is resumed has its own, leave {app!r} out")
    if resume is not None and name is not None:
        raise ConfigError("--name: a run that is resumed keeps its name")


def overridden(
    app: App,
    past: Past | None,
    strategy: str | None,
    settings: list[str],
    run_config: list[str],
    data_dir: Path | None,
    federation: Federation | None = None,
) -> dict[str, Scalar]:
    """The run config's overrides: those of the past run, if it is one, then what the options say."""
    overrides = (past.overrides if past else {}) | parse_overrides(run_config)
    if data_dir is not None:
        overrides[DATA_DIR] = str(is_folder(data_dir, "data-dir"))
    from_config = any(pair.partition("=")[0].strip() == STRATEGY for pair in run_config)
    spec = chosen(strategy, settings, app, overrides, from_config, federation)
    if spec is not None:
        overrides[STRATEGY] = spec
    return overrides


def chosen(
    strategy: str | None,
    settings: list[str],
    app: App,
    overrides: Mapping[str, Scalar],
    from_config: bool,
    federation: Federation | None = None,
) -> str | None:
    """The strategy's spec: the option's, else the run config's, the federation's, the app's; with settings.

    None where nothing but the app's own default is meant.
    """
    block = federation.config.strategy if federation else None
    compression = federation.config.compression if federation else None
    if strategy is not None and from_config:
        raise ConfigError("--strategy and the run config's 'strategy' are both given; leave one out")
    given = strategy if strategy is not None else overrides.get(STRATEGY)
    if STRATEGY not in app.config:
        if strategy is not None or settings:
            option = "--strategy" if strategy is not None else "--set"
            raise ConfigError(f"{option}: {app.name} takes none: its run config has no key 'strategy'")
        return None
    if given is None and block is None and compression is None and not settings:
        return None
    from ..strategies import compose, from_mapping, with_default  # Flower takes a second to import

    if given is None:
        given = from_mapping(block) if block is not None else str(app.config[STRATEGY])
    spec = compose(str(given), settings)
    return spec if compression is None else with_default(spec, "compression", compression)


def execute(
    federation: Federation,
    app: App,
    overrides: Mapping[str, Scalar],
    name: str,
    resume: Path | None = None,
) -> dict[str, Any]:
    """Submit, follow, and return the result with the run's folder in it."""
    submitted = submit(
        federation.state_dir,
        federation.connection,
        app,
        overrides,
        name=name,
        strategy=str(overrides[STRATEGY]) if STRATEGY in overrides else None,
        nodes=federation.num_nodes,
        resume=resume,
    )
    ERR.print(f"run {submitted.name} (Flower's id {submitted.run_id})", highlight=False)
    return follow(federation, submitted, app) | {"folder": str(submitted.folder)}


def report(result: dict[str, Any], as_json: bool) -> None:
    """Print the rounds, for people or for scripts."""
    if result["rounds"]:
        ERR.print(rounds_table(result))
    ERR.print(f"run folder: {result['folder']}", highlight=False, soft_wrap=True)
    if as_json:
        print_json(result)


def check(app: App, config: Mapping[str, Scalar], num_nodes: int, *, resume: Path | None = None) -> None:
    """Find what is wrong before anything starts: the app's text, the strategy, what the app itself knows."""
    check_sources(app)
    if STRATEGY in config:
        from ..strategies import HybridStrategy  # Flower takes a second to import
        from ..strategies import check as check_strategy

        strategy = check_strategy(str(config[STRATEGY]), num_nodes)
        if resume is not None:
            if not isinstance(strategy, HybridStrategy):
                words = f"--resume: {config[STRATEGY]} alone keeps no checkpoints"
                raise ConfigError(f"{words}; hybrid(inner=...) does")
            strategy.check_resume(resume)
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


def _target(federation: str | None, nodes: int | None) -> Federation:
    return find(federation) if nodes is None else Federation.ephemeral(nodes=nodes)


def folder_of(app: str) -> Path:
    """Of an app that is named by a path or as a shipped one; ConfigError where it is neither."""
    path = Path(app)
    if path.is_dir():
        return path
    if app in apps.NAMES:
        return apps.path(app)
    shipped = ", ".join(apps.NAMES)
    raise ConfigError(f"app must be a folder of a Flower App or one of: {shipped}; got {app!r}")
