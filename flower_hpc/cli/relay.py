"""``flower-hpc relay``: TCP passed on, unread."""

import logging
from typing import Annotated

import typer

from ..network.relay import relay as pass_on


def relay(
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where to listen.")],
    to: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where to pass connections on to.")],
    max_connections: Annotated[int, typer.Option(help="At once; more wait.")] = 512,
) -> None:
    """Pass TCP connections on, unread, at a login node between SuperNodes and a gateway."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    pass_on(listen, to, max_connections)
