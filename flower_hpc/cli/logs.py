"""``flower-hpc logs``: what a node, the SuperLink or the controller wrote."""

import time
from collections import deque
from typing import Annotated

import typer

from ..errors import LaunchError
from ..federation import Federation
from .common import FileOption, find


def logs(
    node: Annotated[
        str, typer.Argument(help="A node's name; or superlink (ServerApps write there), controller.")
    ],
    federation: FileOption = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on printing what is written.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Lines from the end; 0 = all.")] = 100,
) -> None:
    """Print the log of NODE."""
    target = find(federation)
    path = target.log_path(node)
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in deque(file, maxlen=lines or None):
            typer.echo(line, nl=False)
        while follow:
            if line := file.readline():
                typer.echo(line, nl=False)
            else:
                time.sleep(2 if fetched(target, node) else 0.2)


def fetched(target: Federation, node: str) -> bool:
    """Whether its log lies elsewhere and had to be fetched; between two pods there may be none."""
    try:
        return target.fetch_log(node)
    except LaunchError:
        return True
