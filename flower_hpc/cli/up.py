"""``flower-hpc up``: make reality match a federation file."""

from typing import Annotated

import typer

from .common import ERR, OUT, File, Json, bring_up, find, print_json, status_table, warn


def up(
    federation: File = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be started, and stop.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the nodes.")] = 180,
    json: Json = False,
) -> None:
    """Start the SuperLink and the SuperNodes of a federation, and keep them alive until `down`.

    Run it again after editing the file: nodes are added or stopped to match.
    """
    target = find(federation)
    if target.config.strategy is not None or target.config.compression is not None:
        from ..strategies import check, from_mapping, with_default  # Flower takes a second to import

        spec = "" if target.config.strategy is None else from_mapping(target.config.strategy)
        if target.config.compression is not None:
            spec = with_default(spec, "compression", target.config.compression)
        check(spec, target.num_nodes)
    if dry_run:
        plan = target.plan()
        if json:
            print_json(plan)
        else:
            for step in plan:
                typer.echo(f"# {step['name']}\n{step['command']}\n")
        return
    warn(target)
    status = bring_up(target, timeout)
    if json:
        print_json(status.to_json())
        return
    OUT.print(status_table(status))
    home, name = target.state_dir / "flwr", target.connection
    ERR.print(f"Flower's own commands reach it so: FLWR_HOME='{home}' flwr run APP {name}", highlight=False)
