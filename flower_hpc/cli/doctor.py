"""``flower-hpc doctor``: what usually goes wrong, found before it does."""

from typing import Annotated

import typer
from rich.markup import escape

from ..federation.doctor import TIMEOUT_S, Finding, Health, examine
from .common import ERR, OUT, FileOption, find, print_json
from .options import Json

MARKS = {Health.OK: "[green]✓[/green]", Health.WARNING: "[yellow]![/yellow]", Health.PROBLEM: "[red]✗[/red]"}
PROBLEM = 1


def doctor(
    site: Annotated[
        str | None,
        typer.Argument(
            help="One of the federation's sites. Default: all, and this machine.", show_default=False
        ),
    ] = None,
    federation: FileOption = None,
    timeout: Annotated[
        float, typer.Option(help="Seconds that a site's probe job may wait and run; 0 sends none.", min=0)
    ] = TIMEOUT_S,
    json: Json = False,
) -> None:
    """Check sites and this machine, with one short job a cluster, and say how to mend what is wrong.

    It starts nothing that lasts. The exit code is 1 where there is a problem; warnings do not count.
    """
    found: list[Finding] = []
    with ERR.status("looking") as line:
        for finding in examine(
            find(federation), site, timeout_s=timeout, tell=lambda words: line.update(escape(words))
        ):
            if not json:
                print_finding(finding, heading=not found or found[-1].site != finding.site)
            found.append(finding)
    if json:
        print_json([finding.to_json() for finding in found])
    if any(finding.state is Health.PROBLEM for finding in found):
        raise typer.Exit(PROBLEM)


def print_finding(finding: Finding, *, heading: bool) -> None:
    """One line, and one below it for what mends."""
    lines = [f"[bold]{escape(finding.site)}[/bold]"] if heading else []
    lines.append(f"  {MARKS[finding.state]} {escape(finding.check)}: {escape(finding.found)}")
    if finding.mend:
        lines.append(f"      mend: {escape(finding.mend)}")
    OUT.print("\n".join(lines), highlight=False, soft_wrap=True)
