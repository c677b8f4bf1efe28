"""Options that several commands have: what they are called, what they mean, how shells complete them.

Each rank of an MPI job imports this, and nothing that costs time.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer


def strategy_names(incomplete: str) -> list[str]:
    """Names of strategies and cutoffs, for shell completion."""
    from ..strategies import describe

    names = [e["name"] for e in describe() if e["kind"] in ("strategy", "cutoff")]
    return [n for n in names if n.startswith(incomplete)]


def run_names(incomplete: str) -> list[str]:
    """Names of runs, for shell completion."""
    from ..federation.runs import REQUEST
    from ..federation.state import home

    return sorted(p.parent.name for p in home().glob(f"*/runs/{incomplete}*/{REQUEST}"))


AppArgument = Annotated[
    str | None,
    typer.Argument(
        help="Folder of a Flower App, that is one with a pyproject.toml, or the name of a shipped one: "
        "benchmark. There is no default; left out with --resume, which has the run's own.",
        show_default=False,
    ),
]
StrategyOption = Annotated[
    str | None,
    typer.Option(
        help="Such as fedbuff, 'first_k(0.75) | deadline(60)' or 'fedprox(mu=0.1)', for apps that take "
        "them; `flower-hpc strategies` lists all. Default: the federation's, else the app's.",
        autocompletion=strategy_names,
    ),
]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Set a parameter of the strategy, such as k=10; repeat it."
    ),
]
RunConfigOption = Annotated[
    list[str] | None,
    typer.Option("--run-config", "-c", metavar="KEY=VALUE", help="Override the app's run config; repeat it."),
]
DataDirOption = Annotated[
    Path | None, typer.Option(help="Folder with the data; default $FLOWER_HPC_DATA, else a download.")
]
NameOption = Annotated[str | None, typer.Option(help="Name of the run; default made of app and time.")]
ResumeOption = Annotated[
    str | None,
    typer.Option(
        metavar="RUN",
        help="Go on with a run that ended early, from its last checkpoint; with -c num-rounds=N also "
        "with one that finished.",
        autocompletion=run_names,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, as the last line of standard output.")]


@dataclass(frozen=True)
class Order:
    """What ``flower-hpc mpi`` was asked for."""

    app: str | None
    nodes: int | None
    strategy: str | None
    settings: list[str]
    run_config: list[str]
    data_dir: Path | None
    name: str | None
    resume: str | None
    json: bool
