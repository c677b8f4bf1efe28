"""``flower-hpc flwr``: Flower's own command line, where it reaches a federation's SuperLink."""

import os
from typing import Annotated

import typer

from ..federation.flwr_cli import command
from .common import FileOption, find

SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": ["--help"]}


def flwr(
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="-- ARG...", help="What follows `flwr`: list, run APP, log RUN, ..."),
    ],
    federation: FileOption = None,
) -> None:
    """Run Flower's `flwr` on a federation, also where its SuperLink lives in a network of its own.

    The federation's name is the connection: `flower-hpc flwr -- list NAME`.
    """
    words, env = command(find(federation).state_dir, *arguments)
    os.execvpe(words[0], words, env)
