"""Free ports are found, never assumed; whoever starts a program on one still retries."""

import errno
import socket
from collections.abc import Collection


def family(host: str) -> socket.AddressFamily:
    """IPv4 or IPv6, from how the address is written."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def free_port(host: str, avoid: Collection[int] = ()) -> int:
    """A TCP port of ``host`` that nobody listens on now, and that is not in ``avoid``."""
    while True:
        with socket.socket(family(host)) as probe:
            probe.bind((host, 0))
            port: int = probe.getsockname()[1]
        if port not in avoid:
            return port


def why_not(host: str, port: int) -> str | None:
    """None where ``port`` can be listened on, else the reason: ``taken``, or the system's words."""
    with socket.socket(family(host)) as probe:
        # as the servers do: a port whose old connections linger is free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            return "taken" if error.errno == errno.EADDRINUSE else (error.strerror or str(error))
    return None


def join(host: str, port: int) -> str:
    """``host:port`` as Flower takes it, with brackets around IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split(address: str) -> tuple[str, int]:
    """Host and port of :func:`join`'s result."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
