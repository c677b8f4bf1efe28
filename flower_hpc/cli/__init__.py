"""``flower-hpc``: bring a federation up, run apps on it, watch it, take it down."""

import signal
import sys
from collections.abc import Callable
from importlib import import_module
from types import FrameType
from typing import Annotated, Any, get_type_hints

import click
import typer
from typer.core import TyperArgument, TyperGroup

from .. import __version__
from ..errors import FlowerHpcError

INTERRUPTED = 130
COMMANDS = (
    "demo",
    "doctor",
    "up",
    "status",
    "run",
    "mpi",
    "strategies",
    "logs",
    "bundle",
    "scale",
    "autoscale",
    "down",
    "flwr",
    "gateway",
    "relay",
)
"""Each a function in the module of its name."""


class Commands(TyperGroup):
    """The commands, of which only those are imported that are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names, in the order of the help text."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One of them."""
        if cmd_name not in COMMANDS:
            return None
        alone = typer.Typer(add_completion=False)
        function = getattr(import_module(f".{cmd_name}", __package__), cmd_name)
        alone.command(cmd_name)(function)
        return explained(typer.main.get_command(alone), function)


def explained(command: click.Command, function: Callable[..., Any]) -> click.Command:
    """The command with what its arguments are: click 8.5 drops the help that the typer of Flower gives it."""
    hints = get_type_hints(function, include_extras=True)
    for param in command.params:
        if isinstance(param, TyperArgument) and not param.help:
            param.help = next((m.help for m in hints[str(param.name)].__metadata__ if m.help), None)
    return command


app = typer.Typer(
    name="flower-hpc",
    cls=Commands,
    help="Federated learning with Flower: federations from a file, rounds that do not wait for the slowest.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"flower-hpc {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Federated learning with Flower: federations from a file, rounds that do not wait for the slowest."""


def main() -> None:
    """Run the command line; every foreseen mistake is one line and an exit code."""
    signal.signal(signal.SIGTERM, _end)  # so that what was started is taken down on the way out
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _end)
    try:
        code = app(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        typer.echo(error.format_message())
        code = 2
    except click.ClickException as error:
        code = _say(error.format_message(), error.exit_code)
    except FlowerHpcError as error:
        code = _say(str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        code = _say("interrupted", INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


def _say(words: str, code: int) -> int:
    if sys.argv[1:2] == ["mpi"]:
        from ..transport.mpi.guard import rank_of_environment

        if rank_of_environment():  # all ranks find the same mistake, and one tells it
            return code
    typer.echo(f"error: {' '.join(words.split())}", err=True)
    return code


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
