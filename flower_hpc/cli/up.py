"""``flower-hpc up``: make reality match a federation file."""

from typing import Annotated

import typer

from ..federation.foreground import foreground
from .common import ERR, OUT, File, FileOption, bring_up, find, print_json, print_status, warn
from .options import Json


def up(
    federation: File = None,
    option: FileOption = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print what would be started, and stop; Kubernetes objects as kubectl apply takes them.",
        ),
    ] = False,
    once: Annotated[
        bool,
        typer.Option("--once", help="See to what is missing and leave no process behind to watch: for cron."),
    ] = False,
    in_foreground: Annotated[
        bool,
        typer.Option(
            "--foreground", help="Stay until a signal, for containers and service managers; sites go on then."
        ),
    ] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the nodes.")] = 180,
    json: Json = False,
) -> None:
    """Start the SuperLink and the SuperNodes of a federation, and keep them alive until `down`.

    Run it again after editing the file: nodes are added or stopped to match.
    """
    target = find(federation, option)
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
            typer.echo(as_text(plan), nl=False)
        return
    target.check()
    warn(target)
    if in_foreground:
        foreground(target)
    if once:
        with ERR.status(f"federation {target.name}: seeing to what is missing"):
            status = target.up_once()
    else:
        status = bring_up(target, timeout)
    if json:
        print_json(status.to_json())
        return
    if not target.config.in_cluster:
        print_status(status, OUT)
        if not status.ready:
            ERR.print("the rest waits in a queue and joins when its jobs start: `flower-hpc status`")
    ERR.print(target.hint, highlight=False, soft_wrap=True)


def as_text(plan: list[dict[str, str]]) -> str:
    """For people; where there are Kubernetes objects, what is none is a comment, so that kubectl takes it."""
    comment = "# " if any("yaml" in step for step in plan) else ""
    text = ""
    for step in plan:
        if "yaml" in step:
            text += f"# {step['name']}\n{step['yaml']}\n"
        else:
            command = step["command"].replace("\n", f"\n{comment}")
            text += f"# {step['name']}\n{comment}{command}\n\n"
    return text
