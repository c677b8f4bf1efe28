"""Passes bytes between two endpoints, unread and in both directions, until either has ended."""

import asyncio
import contextlib
import logging
import os
import resource
import socket
import ssl
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError
from ..local_socket import address
from .endpoint import Endpoint

log = logging.getLogger(__name__)

CHUNK = 256 * 1024
SHAKE_S = 10.0
DIAL_S = 15.0
LAST_S = 1.0
HALF_S = 60.0
MAX_CONNECTIONS = 512
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class Identity:
    """What a side shows, and whom it believes; both sides of a ``tls:`` endpoint need one.

    Parameters
    ----------
    cert, key : Path
        PEM. A listener's certificate names its host; a dialler's is for client authentication.
    ca : Path
        PEM; who signed the other side's certificate.
    name : str
        What a dialler demands to be in the listener's certificate. Default: the host it dials.
    """

    cert: Path
    key: Path
    ca: Path
    name: str = ""

    def __post_init__(self) -> None:
        """Refuse files that are not there, or do not fit each other."""
        self.context(server=False)

    def context(self, *, server: bool) -> ssl.SSLContext:
        """TLS 1.3 that demands a certificate of the other side; ConfigError for files that cannot work."""
        purpose = ssl.Purpose.CLIENT_AUTH if server else ssl.Purpose.SERVER_AUTH
        try:
            context = ssl.create_default_context(purpose, cafile=str(self.ca))
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.verify_mode = ssl.CERT_REQUIRED
            # never ask a terminal for the key's password
            context.load_cert_chain(self.cert, self.key, password=lambda: "")
        except OSError as error:  # ssl.SSLError is one
            words = error.strerror or getattr(error, "reason", None) or error
            raise ConfigError(f"cert {self.cert}, key {self.key}, ca {self.ca}: {words}") from error
        return context


@dataclass(frozen=True)
class Forward:
    """What comes in at ``listener`` goes to ``to``.

    Parameters
    ----------
    listener : socket.socket
        Listens already, see :func:`flower_hpc.network.endpoint.listen`; of whatever network it was made in.
    at : Endpoint
        What ``listener`` is; its kind decides whether connections are TLS.
    to : Endpoint
        Dialled for each connection, from the network of this process.
    identity : Identity, optional
        For ``tls:`` on either side.
    max_connections : int
        At once, default 512; more wait to be accepted.
    """

    listener: socket.socket
    at: Endpoint
    to: Endpoint
    identity: Identity | None = None
    max_connections: int = MAX_CONNECTIONS

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.max_connections < 1:
            raise ConfigError(f"max_connections must be at least 1, got {self.max_connections}")
        if self.identity is None and "tls" in (self.at.kind, self.to.kind):
            raise ConfigError(f"{self.at} to {self.to}: tls needs a certificate, its key and a CA")


async def serve(forwards: Sequence[Forward], stop: asyncio.Event | None = None) -> None:
    """Forward until cancelled, or until ``stop`` is set; UNIX sockets are removed at the end.

    After ``stop`` nothing new is accepted, and what is under way has a second to end.
    """
    more_files(sum(each.max_connections for each in forwards))
    inodes = [_inode(each.at) for each in forwards]
    running: set[asyncio.Task[None]] = set()
    tasks = [asyncio.create_task(_accept(each, running)) for each in forwards]
    stopped = asyncio.create_task((stop or asyncio.Event()).wait())
    try:
        done, _ = await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopped}:
            task.result()
    finally:
        for task in (*tasks, stopped):
            task.cancel()
        for each, inode in zip(forwards, inodes, strict=True):
            each.listener.close()
            if inode is not None and _inode(each.at) == inode:  # a successor's is not ours to remove
                Path(each.at.path).unlink(missing_ok=True)
    if running:
        await asyncio.wait(running, timeout=LAST_S)


async def _accept(forward: Forward, running: set[asyncio.Task[None]]) -> None:
    loop = asyncio.get_running_loop()
    server = forward.identity.context(server=True) if forward.identity and forward.at.kind == "tls" else None
    client = forward.identity.context(server=False) if forward.identity and forward.to.kind == "tls" else None
    forward.listener.setblocking(False)
    free = asyncio.Semaphore(forward.max_connections)

    def ended(task: asyncio.Task[None]) -> None:
        running.discard(task)
        free.release()

    while True:
        if free.locked():
            log.warning("%s: %d connections are open, more must wait", forward.at, forward.max_connections)
        await free.acquire()
        try:
            connection, _ = await loop.sock_accept(forward.listener)
        except OSError as error:  # out of descriptors, or the caller went away
            free.release()
            log.warning("%s: %s", forward.at, error.strerror or error)
            await asyncio.sleep(0.1)
            continue
        task = asyncio.create_task(_connect(forward, connection, server, client))
        running.add(task)
        task.add_done_callback(ended)


async def _connect(
    forward: Forward, connection: socket.socket, server: ssl.SSLContext | None, client: ssl.SSLContext | None
) -> None:
    streams: list[asyncio.StreamWriter] = []
    try:
        near = await _adopt(connection, server)
        streams.append(near[1])
        async with asyncio.timeout(DIAL_S):
            far = await _dial(forward.to, client, forward.identity.name if forward.identity else "")
        streams.append(far[1])
        await _join(near, far)
    except (OSError, TimeoutError) as error:
        log.info("%s to %s: %s", forward.at, forward.to, error or type(error).__name__)
        _reset(connection)
    finally:
        for writer in streams:
            writer.transport.abort()  # what was to be sent is sent, or cannot be
        connection.close()


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def _adopt(connection: socket.socket, context: ssl.SSLContext | None) -> Streams:
    """Streams of an accepted connection, after its handshake."""
    loop = asyncio.get_running_loop()
    _keep_alive(connection)
    reader = asyncio.StreamReader(limit=CHUNK)
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await loop.connect_accepted_socket(
        lambda: protocol, connection, ssl=context, ssl_handshake_timeout=SHAKE_S if context else None
    )
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def _dial(to: Endpoint, context: ssl.SSLContext | None, name: str) -> Streams:
    if to.kind == "unix":
        with address(to.path) as path:
            return await asyncio.open_unix_connection(path, limit=CHUNK)
    tls = {"ssl": context, "server_hostname": name or to.host} if context else {}
    reader, writer = await asyncio.open_connection(to.host, to.port, limit=CHUNK, **tls)  # type: ignore[arg-type]
    _keep_alive(writer.get_extra_info("socket"))
    return reader, writer


async def _join(near: Streams, far: Streams) -> None:
    up = asyncio.create_task(_pump(near[0], far[1]))
    down = asyncio.create_task(_pump(far[0], near[1], pass_empty=False))
    try:
        await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
        if down.done() and down.result() == 0:
            # as if refused: Flower's nodes try again after a reset, but give up on an EOF in a TLS handshake
            raise ConnectionResetError("it was closed without a word")
        ended, other, source, sink = (up, down, near, far) if up.done() else (down, up, far, near)
        ended.result()
        if source[1].can_write_eof() and sink[1].can_write_eof():
            await other  # the end was passed on; what comes the other way still does
        elif source[1].can_write_eof() and ended is up:
            # asyncio's TLS can neither pass an end on nor go on after one: wait for the answer
            await asyncio.wait((down,), timeout=HALF_S)
        for writer in (near[1], far[1]):
            writer.close()
        for writer in (near[1], far[1]):
            async with asyncio.timeout(HALF_S):
                await writer.wait_closed()
    finally:
        for task in (up, down):
            task.cancel()
        await asyncio.gather(up, down, return_exceptions=True)


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, pass_empty: bool = True
) -> int:
    """Pass bytes on until their end; how many there were."""
    passed = 0
    # so that all is with the kernel when drained; asyncio's TLS stands still at 0
    writer.transport.set_write_buffer_limits(high=0 if writer.can_write_eof() else 1, low=0)
    while data := await reader.read(CHUNK):
        passed += len(data)
        writer.write(data)
        await writer.drain()  # read no faster than the other side takes
    if (passed or pass_empty) and writer.can_write_eof():
        writer.write_eof()
    return passed


def _keep_alive(connection: socket.socket) -> None:
    # a quiet connection is left alone; one whose host is gone is found out by the kernel after some minutes
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for option, seconds in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 20), ("TCP_KEEPCNT", 6)):
                if hasattr(socket, option):
                    connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), seconds)


def more_files(connections: int) -> None:
    """Raise this process's limit of open files, as far as it may, to what so many connections need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + 64
    if soft != resource.RLIM_INFINITY and soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, limit), hard))


def _inode(endpoint: Endpoint) -> tuple[int, int] | None:
    if endpoint.kind != "unix":
        return None
    try:
        found = os.lstat(endpoint.path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
