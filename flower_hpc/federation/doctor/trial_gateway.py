"""The way that nodes would take in: the federation's own where it is up, else a listener for the trial."""

import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...launchers.filling import read_door
from ...launchers.ports import family
from ...launchers.probe import Way
from ...network.endpoint import Endpoint
from ..config import FederationConfig
from ..identity import ensure_tls
from ..jobs import site_folder
from ..state import StateDir

HANDSHAKE_S = 10.0


@contextmanager
def way_in(
    config: FederationConfig, site: str, state: StateDir, *, is_up: bool
) -> Iterator[tuple[Way, bool]]:
    """Where the site's nodes would go, and whether a listener stands in for it.

    Raises
    ------
    OSError
        The gateway's address cannot be listened on.
    """
    door = read_door(site_folder(config, site, state) / "door") if is_up else ""
    if door:
        end = Endpoint.parse(door)
        yield Way(end.host, end.port, state.ca.read_text()), False
        return
    with tempfile.TemporaryDirectory(prefix="flower-hpc-doctor-") as folder:
        own = StateDir(Path(folder))
        ensure_tls(own, "127.0.0.1")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(own.server_cert, own.server_key)
        with answering(config.gateway.host, config.gateway.port or 0, context) as port:
            yield Way(config.gateway.address or socket.gethostname(), port, own.ca.read_text()), True


@contextmanager
def answering(host: str, port: int, context: ssl.SSLContext) -> Iterator[int]:
    """Shake hands with whoever comes, and nothing else; yields the port."""
    with socket.create_server((host, port), family=family(host)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, context), daemon=True)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
            listener.close()
            thread.join(HANDSHAKE_S)


def _serve(listener: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        try:
            raw, _ = listener.accept()
        except OSError:
            return
        with raw, suppress(OSError):
            raw.settimeout(HANDSHAKE_S)
            with context.wrap_socket(raw, server_side=True):
                continue
