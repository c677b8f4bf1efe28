"""The server: HTTPS with a thread for each connection, tokens, and one answer for every request."""

import contextlib
import json
import select
import socket
import ssl
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from kube import discovery, protobuf, rbac, tables, watching
from kube.asked import Asked, parse
from kube.errors import ApiError
from kube.faults import REASONS, Request
from kube.routes import Routes

HELD_S = 300  # how long a connection may be silent


class Server(ThreadingHTTPServer):
    """Serves ``routes`` until `stop`."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, routes: Routes, folder: Path):
        self.routes = routes
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(folder / "server.crt", folder / "server.key")
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.stopping = False
        super().__init__(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"https://127.0.0.1:{self.server_address[1]}"

    def start(self) -> None:
        """Serve in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Close every connection."""
        self.stopping = True
        self.shutdown()
        self.server_close()
        for connection in self.connections(None):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        end = time.monotonic() + 5
        while self.connections(None) and time.monotonic() < end:
            time.sleep(0.02)
        self._thread.join(5)

    def connections(self, more: socket.socket | None) -> list[socket.socket]:
        """Those that are open, and perhaps one more."""
        with self._lock:
            self._open |= {more} - {None}
            return list(self._open)

    def closed(self, connection: socket.socket) -> None:
        """Forget a connection."""
        with self._lock:
            self._open.discard(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    timeout = HELD_S
    server: Server

    def setup(self) -> None:
        """Shake hands here, not where connections are accepted."""
        self.request.settimeout(10)
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain = self.request
        try:
            self.request = self.server.context.wrap_socket(plain, server_side=True)
        except (OSError, ValueError):
            plain.close()
            raise
        self.server.connections(self.request)
        super().setup()

    def finish(self) -> None:
        """Close."""
        with contextlib.suppress(OSError, ValueError):
            super().finish()
        self.server.closed(self.request)
        self.request.close()

    def log_message(self, *args: Any) -> None:
        """No lines on stderr."""

    def do_GET(self) -> None:
        """Every method takes the same way."""
        self.warnings: list[str] = []
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.asked = asked = Asked("", None, "", "", "", {})
        status, self.who = 0, ""
        fault = self.server.routes.faults.next(self.command, self.path)
        try:
            if fault and fault.delay_s:
                time.sleep(fault.delay_s)
            if fault and not fault.before and fault.status != 0:
                status = self._fail(fault)
                return
            status, answer = self._answer(asked, body)
            if fault and fault.status != 0:
                status = self._fail(fault)
                return
            if answer is not None:
                self._send(status, answer)
        except ApiError as error:
            status = error.code
            self._send(error.code, error.status())
        finally:
            self._log(status)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def _answer(self, asked: Asked, body: bytes) -> tuple[int, Any]:
        routes, url = self.server.routes, urllib.parse.urlsplit(self.path)
        user = routes.tokens.user(self.headers.get("Authorization", ""))
        self.who = user.name
        query = {k: v[-1] for k, v in urllib.parse.parse_qs(url.query, keep_blank_values=True).items()}
        if url.path in ("/healthz", "/readyz", "/livez"):
            return 200, "ok"
        if (found := discovery.answer(url.path)) is not None:
            return 200, found
        self.asked = asked = parse(self.command, url.path, query)
        rbac.check(routes.store, user, asked.verb, asked.resource, asked.below, asked.namespace, asked.name)
        if asked.verb == "watch":
            return 200, self._watch(asked)
        if asked.below == "log" and query.get("follow") in ("true", "1", "True"):
            return 200, self._follow(asked)
        content = self.headers.get("Content-Type", "application/json").partition(";")[0]
        agent = self.headers.get("User-Agent", "").partition("/")[0]
        status, answer = routes.answer(asked, user, self._parsed(body), content, agent, self.warnings)
        if "as=Table" in self.headers.get("Accept", "") and asked.verb in ("get", "list") and not asked.below:
            answer = tables.table(asked.resource, answer) or answer
        return status, answer

    def _parsed(self, body: bytes) -> Any:
        if not body:
            return None
        if body.startswith(protobuf.MAGIC):
            return protobuf.decode(body)
        try:
            return json.loads(body)
        except ValueError:
            try:
                return yaml.safe_load(body)
            except yaml.YAMLError as error:
                raise ApiError(400, "BadRequest", f"error decoding YAML: {error}") from None

    def _watch(self, asked: Asked) -> None:
        routes = self.server.routes
        events = watching.watch(
            routes.api, routes.faults, asked.resource, asked.namespace, asked.query, self._is_alive
        )
        sent = False
        try:
            for event in events:
                if not sent:
                    self._begin_chunks("application/json")
                    sent = True
                self._chunk(json.dumps(event).encode() + b"\n")
        except ApiError as error:
            # as a real server: what is too old is said within the stream
            if sent or error.code != 410:
                raise
            self._begin_chunks("application/json")
            sent = True
            self._chunk(json.dumps({"type": "ERROR", "object": error.status()}).encode() + b"\n")
        except OSError:
            self.close_connection = True
            return
        if not sent:
            self._begin_chunks("application/json")
        self._end_chunks()

    def _follow(self, asked: Asked) -> None:
        self._begin_chunks("text/plain")
        with contextlib.suppress(OSError):
            for piece in self.server.routes.follow(asked, self._is_alive):
                self._chunk(piece)
            self._end_chunks()
            return
        self.close_connection = True

    def _is_alive(self) -> bool:
        if self.server.stopping:
            return False
        readable, _, _ = select.select([self.request], [], [], 0)
        if not readable:
            return True
        with contextlib.suppress(OSError, ValueError):
            return self.request.recv(1) != b""
        return False

    def _begin_chunks(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()

    def _chunk(self, piece: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))

    def _end_chunks(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def _fail(self, fault: Any) -> int:
        if fault.status is None:
            self.close_connection = True
            return 0
        reason = REASONS.get(fault.status, "")
        said = "too many requests, please try again later" if fault.status == 429 else "a fault of the test"
        details = {"retryAfterSeconds": fault.retry_after} if fault.retry_after else None
        status = ApiError(fault.status, reason, said, details).status()
        self._send(
            fault.status, status, **({"Retry-After": str(fault.retry_after)} if fault.retry_after else {})
        )
        return fault.status

    def _send(self, status: int, answer: Any, **headers: str) -> None:
        text = isinstance(answer, (str, bytes))
        data = (
            (answer.encode() if isinstance(answer, str) else answer) if text else json.dumps(answer).encode()
        )
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if text else "application/json")
        self.send_header("Content-Length", str(len(data)))
        for warning in self.warnings:
            self.send_header("Warning", "299 - " + json.dumps(warning))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _log(self, status: int) -> None:
        asked = self.asked
        resource = asked.resource.plural if asked.resource else ""
        shown = f"{resource}/{asked.below}" if asked.below else resource
        agent = self.headers.get("User-Agent", "")
        line = Request(asked.verb, shown, asked.name, self.who, status, self.command, self.path, agent)
        self.server.routes.requests.log.append(line)
