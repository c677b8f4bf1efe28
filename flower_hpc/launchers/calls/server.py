"""Hands calls over to workers on other hosts and takes their results: HTTPS of a process's own.

A worker proves who it is by its call's token, and the server by a certificate that the worker was given.
Calls and results are pickled straight into the connection and out of it. A result is unpickled only when it
comes with the right token: then it is from code that this process has chosen itself.
"""

import contextlib
import hmac
import io
import logging
import pickle
import secrets
import ssl
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import socket
from socketserver import TCPServer
from typing import Any

import cloudpickle

from ...errors import LaunchError
from ..ports import family, join
from .certificate import self_signed
from .chunked import PIECE, ChunkedReader, chunked

log = logging.getLogger("flwr.hpc")  # below Flower's own logger

SILENCE_S = 120.0
"""A connection on which nothing moves for so long is closed."""
PORTS = (9100, 9163)
"""Where a process of a pod may listen: network policies name ports."""
WORKER = "X-Worker"
CALL, ALIVE, RESULT = "call", "alive", "result"


@dataclass
class Call:
    """What a worker is to do, and who hears of it.

    Parameters
    ----------
    parts : iterable
        Objects that are pickled for it, one after the other.
    began : callable
        Called when a worker takes it.
    ended : callable
        Called with whether it went well, and with what it returned, or the error.
    failed : callable
        Called with why it cannot be handed over, or its result cannot be read.
    """

    parts: Iterable[Any]
    began: Callable[[], object]
    ended: Callable[[bool, Any], object]
    failed: Callable[[Exception], object]
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    worker: str = ""


class CallServer(ThreadingHTTPServer):
    """Serves calls until :meth:`close`.

    Parameters
    ----------
    address : str
        Of this host, as workers see it.
    ports : tuple of int
        First and last of those to choose from.

    Raises
    ------
    LaunchError
        None of them is free, or the address is not this host's.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: str, ports: tuple[int, int] = PORTS) -> None:
        self.certificate, key = self_signed(address)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_3
        key.load_into(self._tls)
        self._calls: dict[str, Call] = {}
        self._lock = threading.Lock()
        self.address_family = family(address)
        self._listen(address, ports)
        self.url = f"https://{join(address, self.server_address[1])}"
        thread = threading.Thread(target=self.serve_forever, args=(0.1,), name="calls", daemon=True)
        thread.start()

    def offer(self, name: str, call: Call) -> None:
        """Let a worker with its token have it."""
        with self._lock:
            self._calls[name] = call

    def withdraw(self, name: str) -> None:
        """Say that nobody waits for it any more."""
        with self._lock:
            self._calls.pop(name, None)

    def find(self, name: str, token: str, worker: str) -> Call | int:
        """The call, or the status of HTTP that refuses it."""
        with self._lock:
            call = self._calls.get(name)
            if call is None:
                return 410
            if not hmac.compare_digest(call.token.encode(), token.encode()):
                return 403
            call.worker = call.worker or worker
            return call if call.worker == worker else 409  # a second pod, if there ever is one

    def server_bind(self) -> None:
        """Without the base class's question to DNS for our own name, which may take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def close(self) -> None:
        """End."""
        self.shutdown()
        self.server_close()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread: TLS first."""
        request.settimeout(SILENCE_S)
        with contextlib.suppress(OSError), self._tls.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:
        """For the log."""
        log.debug("a connection of %s failed", client_address, exc_info=True)

    def _listen(self, address: str, ports: tuple[int, int]) -> None:
        first, last = ports
        count = last - first + 1
        start = secrets.randbelow(count)
        why: OSError | None = None
        for offset in range(count):
            try:
                super().__init__((address, first + (start + offset) % count), _Handler)
                return
            except OSError as error:
                why = error
        words = why.strerror if why else ""
        raise LaunchError(f"calls cannot be served at {address}, ports {first} to {last}: {words}")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: CallServer

    def do_GET(self) -> None:
        what, call = self._asked()
        if call is None:
            return None
        if what == ALIVE:
            return self._say(204)
        if what == CALL:
            return self._hand_over(call)
        return self._say(404)

    def do_POST(self) -> None:
        what, call = self._asked()
        if call is None:
            return None
        if what != RESULT:
            return self._say(404)
        self._take(call)
        return self._say(204)

    def _asked(self) -> tuple[str, Call | None]:
        name, _, what = self.path.strip("/").partition("/")
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        found = self.server.find(name, token, self.headers.get(WORKER, ""))
        if isinstance(found, int):
            self._say(found)
            return what, None
        return what, found

    def _hand_over(self, call: Call) -> None:
        call.began()
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.close_connection = True
        try:
            with chunked(self.wfile.write) as body:
                for part in call.parts:
                    cloudpickle.dump(part, body)
        except OSError:  # it will ask again
            raise
        except Exception as error:  # whatever pickling leads to
            call.failed(error)

    def _take(self, call: Call) -> None:
        self.close_connection = True  # what an error leaves unread is no request
        body: Any = io.BufferedReader(ChunkedReader(self.rfile), PIECE)  # type: ignore[arg-type]
        try:
            good, value = pickle.load(body)
        except OSError:  # it will send it again
            raise
        except Exception as error:  # whatever unpickling leads to
            call.failed(error)
        else:
            call.ended(good, value)

    def _say(self, status: int) -> None:
        self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("calls: " + format, *args)
