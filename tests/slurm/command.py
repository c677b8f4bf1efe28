"""The command line of `slurm.cluster`, for developers."""

import argparse
import tempfile
from dataclasses import fields
from pathlib import Path

from slurm.cluster import SlurmCluster, SlurmError
from slurm.conf import Knobs, user_name


def main() -> None:
    """Bring a cluster up or down, or let one of its nodes crash or return."""
    arguments = vars(parser().parse_args())
    command, folder = arguments.pop("command"), arguments.pop("folder")
    try:
        if command == "up":
            cluster = SlurmCluster(folder, **arguments)
            cluster.up()
            print(*(f"export {name}={value}" for name, value in cluster.env.items()), sep="\n")
        elif command == "down":
            SlurmCluster.at(folder).down()
        else:
            getattr(SlurmCluster.at(folder), command)(arguments["node"])
    except (SlurmError, ValueError) as error:
        raise SystemExit("\n".join([str(error), *getattr(error, "__notes__", [])])) from None


def parser() -> argparse.ArgumentParser:
    """One option for each knob."""
    top = argparse.ArgumentParser(
        prog="cluster.py", description="A real Slurm of virtual nodes on this machine: eval $(cluster.py up)."
    )
    where = argparse.ArgumentParser(add_help=False)
    default = Path(tempfile.gettempdir()) / f"slurm-of-{user_name()}"
    where.add_argument("--folder", type=Path, default=default, help="where it lives (default: %(default)s)")
    commands = top.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", parents=[where], help="start one and print what a client needs")
    for knob in fields(Knobs):
        name = "--" + knob.name.replace("_", "-")
        if knob.type is bool:
            up.add_argument(name, action="store_true", help="with slurmdbd and a database")
        elif knob.type is int:
            up.add_argument(name, type=int, default=knob.default, help="(default: %(default)s)")
        else:
            up.add_argument(name, choices=["linuxproc", "cgroup"], default=knob.default)
    commands.add_parser("down", parents=[where], help="end its jobs and processes, remove its folder")
    for verb, says in (("crash", "let a node vanish as if its power went"), ("start", "bring it back")):
        commands.add_parser(verb, parents=[where], help=says).add_argument("node", help="vn1, vn2, ...")
    return top
