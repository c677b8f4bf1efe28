"""Passes TCP on, unread: for a login node between nodes and a gateway, which it need not trust."""

import asyncio
import contextlib
import signal

from ..errors import ConfigError
from .endpoint import Endpoint, host_port, listen
from .forward import MAX_CONNECTIONS, Forward, serve


def relay(at: str, to: str, max_connections: int = MAX_CONNECTIONS) -> None:
    """Pass TCP connections on until SIGINT or SIGTERM.

    Parameters
    ----------
    at, to : str
        ``HOST:PORT``: where to listen, and what to dial for each connection.
    max_connections : int
        At once, default 512; more wait.

    Raises
    ------
    ConfigError
        A value cannot work, or ``at`` cannot be listened on; one line.
    """
    here, there = (_tcp(each, name) for each, name in ((at, "listen"), (to, "to")))
    if max_connections < 1:
        raise ConfigError(f"max_connections must be at least 1, got {max_connections}")
    asyncio.run(_until_stopped(Forward(listen(here), here, there, max_connections=max_connections)))


async def _until_stopped(forward: Forward) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with contextlib.closing(forward.listener):
        await serve([forward], stop)


def _tcp(text: str, name: str) -> Endpoint:
    host, port = host_port(text, f"{name} must be HOST:PORT (IPv6 in brackets), got {text!r}")
    return Endpoint("tcp", host=host, port=port)
