"""What the commands share: their options' types, which federation is meant, how to print."""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..errors import ConfigError
from ..federation import Federation, Status
from ..telemetry.events import finite

ERR = Console(stderr=True)
OUT = Console()

WHICH = "A federation.yaml, or a federation's name. Default: ./federation.yaml, else the one that is up."

File = Annotated[
    str | None,
    typer.Argument(
        metavar="[FEDERATION]",
        help=WHICH,
        show_default=False,
    ),
]
FileOption = Annotated[
    str | None,
    typer.Option(
        "--federation",
        "-f",
        metavar="FEDERATION",
        help=WHICH,
        show_default=False,
    ),
]


def find(which: str | None, option: str | None = None) -> Federation:
    """The federation that the user means; commands that take it without an option take it with one too."""
    if which is not None and option not in (None, which):
        raise ConfigError(f"FEDERATION and --federation differ: {which!r} and {option!r}; give one of them")
    return Federation.find(which if which is not None else option)


def print_json(value: Any) -> None:
    """One line of JSON on standard output."""
    typer.echo(json.dumps(finite(value), allow_nan=False))


def warn(federation: Federation) -> None:
    """Say what the user should know about this federation."""
    for words in federation.warnings:
        ERR.print(f"[yellow]warning:[/yellow] {words}", highlight=False, soft_wrap=True)


def bring_up(federation: Federation, timeout_s: float) -> Status:
    """Bring it up, with a line that says how far it is."""
    with ERR.status(f"federation {federation.name}: starting") as line:

        def show(status: Status) -> None:
            line.update(f"federation {federation.name}: {status.online} of {status.wanted} nodes online")

        return federation.up(progress=show, timeout_s=timeout_s)


def status_table(status: Status) -> Table:
    """The SuperLink and the nodes, one a row."""
    table = Table(title=f"federation {status.name}: {status.state}")
    batch = any(node.job and node.pid is None for node in status.nodes)
    wide = ("job", "host") if batch else ("pid",)
    # however narrow the terminal: names and states that are cut short tell nothing
    whole = {"node": max((len(node.name) for node in status.nodes), default=0), "state": 8}
    for column in ("node", "site", "state", *wide, "restarts", "partition", "node id"):
        table.add_column(column, no_wrap=column in whole, min_width=whole.get(column))
    for node in status.nodes:
        place = (node.job or None, node.where or None) if batch else (node.pid,)
        cells = (node.name, node.site, node.state, *place, node.restarts, node.partition, node.node_id)
        table.add_row(*("-" if cell is None else str(cell) for cell in cells))
    if status.superlink is not None:
        on = f" on {status.superlink.where}, job {status.superlink.job}" if status.superlink.where else ""
        price = f"; the nodes cost ${status.usd_per_hour:g} an hour" if status.usd_per_hour else ""
        table.caption = f"SuperLink at {status.address}{on}{price}"
    return table


def print_status(status: Status, console: Console) -> None:
    """The table, and below it a line for each node that is not online, and each site in trouble."""
    console.print(status_table(status))
    if status.superlink is not None and status.superlink.reason:
        line = escape(f"the SuperLink is {status.superlink.state}: {status.superlink.reason}")
        console.print(line, highlight=False, soft_wrap=True)
    for node in status.nodes:
        words = [node.reason] if node.reason else []
        if node.starts_at:
            words.append(f"expected to start {time.strftime('%a %H:%M', time.localtime(node.starts_at))}")
        if words:
            line = escape(f"{node.name} is {node.state}: {', '.join(words)}")
            console.print(line, highlight=False, soft_wrap=True)
    for site, count in status.elastic.items():
        more = f"{abs(count)} {'more' if count > 0 else 'fewer'} than asked for by `scale` or the file"
        console.print(f"site {site}: {more}", highlight=False, soft_wrap=True)
    if status.decision:
        console.print(escape(f"last decision: {status.decision}"), highlight=False, soft_wrap=True)
    for site, trouble in status.trouble.items():
        console.print(f"site {site}: {trouble}", style="yellow", highlight=False, soft_wrap=True)


def is_folder(path: Path, what: str) -> Path:
    """The absolute path of a folder that must be there."""
    if not path.is_dir():
        raise ConfigError(f"{what} must be a folder that exists, got {str(path)!r}")
    return path.resolve()
