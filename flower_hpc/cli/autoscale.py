"""``flower-hpc autoscale``: what was decided about numbers of nodes, and what other policies would have."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ..federation.rehearsal import Told, decided, rehearsed
from ..telemetry.events import FILE
from .common import OUT, FileOption, find, print_json
from .options import Json


def autoscale(
    federation: FileOption = None,
    rehearse: Annotated[
        bool,
        typer.Option("--rehearse", help="Not what was decided, but what the file's policies now would have."),
    ] = False,
    record: Annotated[
        Path | None,
        typer.Option(
            help="Rehearse with this record, an elastic/events.jsonl. Default: the federation's own.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Print what autoscale, burst and the budget of a federation did, and why.

    While a federation with such policies is up, `elastic/events.jsonl` of its state folder records what was
    seen and decided. With --rehearse the policies of the federation file meet that record: edit the file, see
    what it would have done and cost, then bring it up. Nodes that were not there are taken to start at once.
    """
    target = find(federation)
    if rehearse or record is not None:
        told = rehearsed(target.config, record or target.state_dir / "elastic" / FILE)
    else:
        told = decided(target.state_dir)
    if json:
        print_json([{"time": at, **asdict(one)} for at, one in told])
    else:
        OUT.print(decisions_table(told))


def decisions_table(told: list[Told]) -> Table:
    """One decision a row."""
    table = Table(title="decisions" if told else "nothing was decided")
    for column in ("time", "site", "nodes", "$/h", "why"):
        table.add_column(column, no_wrap=column in ("time", "nodes"))
    for at, one in told:
        moved = one.before != one.after
        nodes = f"{one.before} -> {one.after}" if moved else f"stays {one.after}"
        when = time.strftime("%m-%d %H:%M:%S", time.localtime(at))
        table.add_row(when, one.site, nodes, f"{one.usd_after:g}", one.reason)
    return table
