"""``flower-hpc``: bring a federation up, run apps on it, watch it, take it down."""

import signal
import sys
from types import FrameType
from typing import Annotated

import click
import typer

from .. import __version__
from ..errors import FlowerHpcError
from .autoscale import autoscale
from .bundle import bundle
from .demo import demo
from .doctor import doctor
from .down import down
from .flwr import flwr
from .gateway import gateway
from .logs import logs
from .relay import relay
from .run import run
from .scale import scale
from .status import status
from .strategies import strategies
from .up import up

INTERRUPTED = 130

app = typer.Typer(
    name="flower-hpc",
    help="Federated learning with Flower: federations from a file, rounds that do not wait for the slowest.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_COMMANDS = (
    demo,
    doctor,
    up,
    status,
    run,
    strategies,
    logs,
    bundle,
    scale,
    autoscale,
    down,
    flwr,
    gateway,
    relay,
)
for _command in _COMMANDS:
    app.command()(_command)


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
    typer.echo(f"error: {' '.join(words.split())}", err=True)
    return code


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
