"""The only listener that other hosts see: passes Flower's Fleet methods to a SuperLink, and nothing else.

    nodes --TLS--> gateway --TLS through a UNIX socket in a folder of ours--> SuperLink in its own network

Node authentication is Flower's and stays end to end: the gateway passes its headers on unchanged.
"""

import asyncio
import logging
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn

from ..errors import ConfigError
from ..local_socket import LONGEST
from .bodies import Answer, Body, Gone, Message, Receive, Send, TooLarge, TooSlow
from .endpoint import Endpoint, host_port, listen
from .fleet import Headers, content_length, passed, refusal
from .forward import more_files
from .heard import Heard, Withdrawn
from .hold import AGAIN_S, HOLD_S, LARGEST, PULL, Bell, rung
from .patience import patient_protocol

log = logging.getLogger(__name__)

Content = bytes | AsyncIterator[bytes]

MB = 1_000_000
LEVELS = ("debug", "info", "warning", "error")
STOP_S = 5
# less than the 5 s after which a SuperLink ends a quiet connection: else a request can meet its end
KEEP_S = 2.0
UPSTREAM = httpx.Timeout(connect=5, write=60, read=120, pool=30)


@dataclass(frozen=True, kw_only=True)
class GatewaySettings:
    """How a gateway is run.

    Parameters
    ----------
    listen : str
        ``HOST:PORT`` that nodes connect to.
    superlink : str
        ``unix:/path`` or ``tcp:HOST:PORT``.
    certificate, key : Path
        PEM; what nodes are shown.
    ca : Path, optional
        PEM; who signed the SuperLink's certificate, which must be for ``localhost`` behind a UNIX socket,
        else for HOST. Needed unless ``insecure_superlink``.
    insecure_superlink : bool
        The SuperLink speaks plain HTTP. Default False.
    max_body_mb : float
        Of one request; default 64. Flower sends arrays in chunks of 5 MB, apps of up to 10 MB, other records
        whole. The SuperLink holds a body in memory before it knows the sender: no more than is needed.
    max_connections : int
        At once; default 512. More are closed, and Flower's nodes try again.
    log_level : {"debug", "info", "warning", "error"}
        Of the server below; default info.
    heard : Path, optional
        File that tells which nodes were heard when; default none.
    bell : Path, optional
        File that tells which nodes have messages; requests for messages are held then, see :mod:`.hold`.
        Made anew. Default none: they are answered at once.
    withdrawn : Path, optional
        File that names nodes that are refused, with the fingerprints of their keys; default none.

    Raises
    ------
    ConfigError
        A value cannot work; one line.
    """

    listen: str
    superlink: str
    certificate: Path
    key: Path
    ca: Path | None = None
    insecure_superlink: bool = False
    max_body_mb: float = 64
    max_connections: int = 512
    log_level: str = "info"
    heard: Path | None = None
    bell: Path | None = None
    withdrawn: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        host_port(self.listen, f"listen must be HOST:PORT, got {self.listen!r}")
        if Endpoint.parse(self.superlink).kind == "tls":
            raise ConfigError(f"superlink must be unix:/path or tcp:HOST:PORT, got {self.superlink!r}")
        if len(self.superlink) > LONGEST and self.superlink.startswith("unix:"):
            raise ConfigError(f"superlink: the path of a UNIX socket must be shorter, got {self.superlink!r}")
        if not 1 <= self.max_body_mb <= 100_000:
            raise ConfigError(f"max_body_mb must be in [1, 100000], got {self.max_body_mb:g}")
        if not 1 <= self.max_connections <= 100_000:
            raise ConfigError(f"max_connections must be in [1, 100000], got {self.max_connections}")
        if self.log_level not in LEVELS:
            raise ConfigError(f"log_level must be one of {', '.join(LEVELS)}, got {self.log_level!r}")
        _context(ssl.PROTOCOL_TLS_SERVER, self.certificate, self.key)
        self.trust()

    def trust(self) -> ssl.SSLContext | None:
        """How the SuperLink is known; None where it speaks plain HTTP."""
        if self.insecure_superlink:
            return None
        if self.ca is None:
            raise ConfigError("ca is needed to know the SuperLink by, unless insecure_superlink")
        return _context(ssl.PROTOCOL_TLS_CLIENT, self.ca)


def serve(settings: GatewaySettings) -> None:
    """Run the gateway until SIGINT or SIGTERM; ConfigError where it cannot listen."""
    host, port = host_port(settings.listen, settings.listen)
    listener = listen(Endpoint("tcp", host=host, port=port))
    more_files(settings.max_connections)
    gateway = Gateway(settings)
    config = uvicorn.Config(
        gateway,
        http=patient_protocol(settings.max_connections),
        ws="none",
        lifespan="off",
        loop="asyncio",
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.key,
        log_config=None,
        log_level=settings.log_level,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=STOP_S,
    )
    log.info("passes %s on to %s", settings.listen, settings.superlink)
    server = uvicorn.Server(config)
    gateway.ends = lambda: server.should_exit
    server.run(sockets=[listener])


class Gateway:
    """The ASGI application; holds no more of a body than a chunk."""

    def __init__(self, settings: GatewaySettings) -> None:
        to = Endpoint.parse(settings.superlink)
        self.refused: Counter[str] = Counter()
        self._heard, self._withdrawn = Heard(settings.heard), Withdrawn(settings.withdrawn)
        self._bell = Bell(settings.bell, lambda: self.ends()) if settings.bell else None
        self.ends: Callable[[], bool] = lambda: False
        """Whether it is about to end."""
        self._max_body = int(settings.max_body_mb * MB)
        host = "localhost" if to.kind == "unix" else f"[{to.host}]" if ":" in to.host else to.host
        port = f":{to.port}" if to.port else ""
        self._base = f"{'http' if settings.insecure_superlink else 'https'}://{host}{port}"
        # the transport alone: a client would follow redirects, read proxies from the environment, add headers
        self._superlink = httpx.AsyncHTTPTransport(
            verify=settings.trust() or False,
            uds=to.path or None,
            limits=httpx.Limits(
                max_connections=settings.max_connections,
                max_keepalive_connections=32,
                keepalive_expiry=KEEP_S,
            ),
        )

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        raw = scope["raw_path"]
        kind = refusal(scope["method"], raw, scope["query_string"])
        if kind is not None:
            self._count(kind, f"{scope['method']} {raw!r}")
            await Answer(send).say(404)
            return
        if self._is_withdrawn(raw, scope["headers"]):
            await Answer(send).say(403)
            return
        held = raw == PULL and self._bell is not None
        most = LARGEST if held else self._max_body
        body, answer = Body(receive, most), Answer(send)
        try:
            if content_length(scope["headers"]) > most:
                raise TooLarge
            if self._bell is not None and held:
                await self._hold(self._bell, scope["headers"], body, answer)
            else:
                await self._pass(raw.decode("ascii"), scope["headers"], body, answer)
        except Gone:
            return
        except TooLarge:
            self._count("body", f"{raw.decode()} of more than {most / MB:g} MB")
            await body.discard()
            await answer.say(413)
        except TooSlow:
            self._count("slow", raw.decode())
            await answer.say(408)
        except httpx.TimeoutException:
            await answer.say(504)  # this and 503 have a SuperNode try again
        except httpx.TransportError as error:
            log.warning("the SuperLink cannot be reached: %s", error or type(error).__name__)
            await answer.say(503)

    async def _hold(self, bell: Bell, headers: Headers, body: Body, answer: Answer) -> None:
        """Answer a request for messages, as late as there is one, or as its node bears."""
        content = b"".join([chunk async for chunk in body.chunks()])
        until = asyncio.get_running_loop().time() + HOLD_S
        with bell.heard_by(content) as event:
            while True:
                response = await self._ask(PULL.decode("ascii"), headers, content)
                self._heard.note(PULL, headers, response.status_code)
                try:
                    stream = response.aiter_raw()
                    chunk = await anext(stream, b"")
                    over = bell.over or asyncio.get_running_loop().time() >= until
                    if response.status_code != 200 or chunk or over:
                        await answer.start(response.status_code, passed(response.headers.raw))
                        await answer.more(chunk)
                        async for chunk in stream:
                            await answer.more(chunk)
                        await answer.end()
                        return
                finally:
                    await response.aclose()
                if not await rung(event, body.gone(), AGAIN_S):
                    raise Gone
                if self._is_withdrawn(PULL, headers):
                    await answer.say(403)
                    return

    async def _ask(self, path: str, headers: Headers, content: Content) -> httpx.Response:
        request = httpx.Request(
            "POST",
            self._base + path,  # one of ours, letter by letter
            headers=passed(headers),
            content=content,
            extensions={"timeout": UPSTREAM.as_dict()},
        )
        return await self._superlink.handle_async_request(request)

    async def _pass(self, path: str, headers: Headers, body: Body, answer: Answer) -> None:
        response = await self._ask(path, headers, body.chunks())
        self._heard.note(path.encode("ascii"), headers, response.status_code)
        try:
            stream = aiter(response.stream)  # type: ignore[arg-type]
            # until the first bytes are here, a failure can still be told by a status
            chunk = await anext(stream, None)
            end = [] if body.ended else [(b"connection", b"close")]
            await answer.start(response.status_code, passed(response.headers.raw) + end)
            while chunk is not None:
                await answer.more(chunk)
                chunk = await anext(stream, None)
            await answer.end()
        finally:
            await response.aclose()

    def _is_withdrawn(self, raw: bytes, headers: Headers) -> bool:
        if not self._withdrawn.sent(headers):
            return False
        self._count("withdrawn", f"{raw.decode()} of a node that is wanted no longer")
        return True

    def _count(self, kind: str, what: str) -> None:
        self.refused[kind] += 1
        # one line of each kind: a log that strangers can fill is another door
        if self.refused[kind] == 1:
            log.warning("refused (%s): %.200s; more of this kind are counted, not logged", kind, what)


def _context(protocol: int, file: Path, key: Path | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    try:
        if key is None:
            context.load_verify_locations(file)
        else:
            context.load_cert_chain(file, key, password=lambda: "")  # never ask a terminal
    except OSError as error:  # ssl.SSLError is one
        words = error.strerror or getattr(error, "reason", None) or error
        raise ConfigError(f"{' and '.join(str(each) for each in (file, key) if each)}: {words}") from error
    return context
