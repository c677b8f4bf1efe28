"""``flower-hpc mpi``: an app inside one MPI job."""

import logging
from typing import Annotated

import typer

from ..errors import ConfigError
from ..transport.mpi.guard import Note, guarded, rank_of_environment
from ..transport.mpi.job import heed_signals, host_nodes, join, leading
from .options import (
    AppArgument,
    DataDirOption,
    Json,
    NameOption,
    Order,
    ResumeOption,
    RunConfigOption,
    SettingsOption,
    StrategyOption,
)

MOST_NODES = 100_000
"""Rank 0 holds 5 KB for each: 0.5 GB beside the model; a slip of the finger should not take 5."""


def mpi(
    app: AppArgument = None,
    nodes: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST_NODES,
            help="How many nodes; ranks host several in turn. Default: one a rank but the first.",
        ),
    ] = None,
    strategy: StrategyOption = None,
    settings: SettingsOption = None,
    run_config: RunConfigOption = None,
    data_dir: DataDirOption = None,
    name: NameOption = None,
    resume: ResumeOption = None,
    json: Json = False,
) -> None:
    """Run APP inside one MPI job: `mpiexec -n 9 flower-hpc mpi APP`, or srun in place of mpiexec.

    Rank 0 is the server, the other ranks are the nodes, whose ClientApps stay loaded between rounds. If a
    rank dies, MPI ends the job: the same command with --resume RUN goes on from the last checkpoint.
    """
    if rank_of_environment() is None:
        raise ConfigError("flower-hpc mpi must be started by MPI: `mpiexec -n 9 flower-hpc mpi APP`, or srun")
    order = Order(app, nodes, strategy, settings or [], run_config or [], data_dir, name, resume, json)
    guarded(lambda note: _rank(order, note))


def _rank(order: Order, note: Note) -> int:
    try:
        line = join()
    except ConfigError as error:
        if rank_of_environment():  # once is enough
            return error.exit_code
        raise
    heed_signals(line.rank)
    try:
        if line.rank:
            logging.basicConfig(format=f"rank {line.rank}: %(message)s", level=logging.WARNING)
            host_nodes(line, note.write)
        else:
            from .mpi_server import lead  # what only one of many ranks needs

            with leading(line):
                lead(order, line, note)
    finally:
        note.write("")
    line.leave()
    return 0
