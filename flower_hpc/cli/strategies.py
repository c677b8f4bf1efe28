"""``flower-hpc strategies``: what can be chosen, with parameters, defaults and papers."""

from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from ..errors import ConfigError
from .common import OUT, print_json
from .options import Json


def strategies(
    name: Annotated[
        str | None,
        typer.Argument(help="Only this one, or this kind, such as `codec`.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """List strategies and the policies that they are made of: parameters, defaults, papers."""
    from ..strategies import describe  # Flower takes a second to import

    entries = [e for e in describe() if name in (None, e["name"])]
    one = name is not None and bool(entries)
    entries = entries or [e for e in describe() if name == e["kind"]]
    if not entries:
        known = ", ".join(e["name"] for e in describe())
        raise ConfigError(f"no strategy or policy is called {name!r}, known are {known}")
    if json:
        print_json(entries)
        return
    if one:
        (entry,) = entries
        OUT.print(f"{entry['kind']} {name}\n\n{entry['help']}", markup=False, highlight=False, soft_wrap=True)
        if entry["paper"]:
            OUT.print(f"\nPaper: {entry['paper']}", markup=False, highlight=False, soft_wrap=True)
        return
    for kind in dict.fromkeys(e["kind"] for e in entries):
        OUT.print(_table(kind, [e for e in entries if e["kind"] == kind]))
    OUT.print(
        "Flower's own strategies are flower.NAME; presets take hybrid's options too. Use: flower-hpc run APP "
        "--strategy fedbuff --set k=10 --set 'staleness=hinge(a=5)'",
        markup=False,
        highlight=False,
    )


def _table(kind: str, entries: list[dict[str, Any]]) -> Table:
    table = Table(title=kind, title_justify="left", box=None, padding=(0, 2, 1, 0), pad_edge=False)
    for column, ratio in (("name", None), ("parameters", 3), ("what it does", 4)):
        table.add_column(column, overflow="fold", no_wrap=ratio is None, ratio=ratio)
    for entry in entries:
        parameters = ", ".join(
            key if default is None else f"{key}={default}" for key, default in entry["parameters"].items()
        )
        words = "\n".join(filter(None, (entry["summary"], entry["paper"])))
        table.add_row(entry["name"], escape(parameters), escape(words))
    return table
