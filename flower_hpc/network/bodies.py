"""Requests and answers of the gateway as they pass: bounded in size and in patience, a chunk at a time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from .fleet import Headers

GRACE_S, SLOWEST_BPS = 60.0, 16_384  # a body may take a minute, and a second more for every 16 KiB
SEND_S = 60.0  # for the taking of 64 KiB of an answer

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class TooLarge(Exception):
    """The body is larger than allowed."""


class TooSlow(Exception):
    """The body comes slower than allowed."""


class Gone(Exception):
    """The node went away, or takes nothing."""


class Body:
    """A request's body, passed on as it comes; no more of it than allowed, no slower than allowed."""

    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self.ended = False
        self._receive, self._max_bytes = receive, max_bytes
        self._taken = 0
        self._began = asyncio.get_running_loop().time()

    async def chunks(self) -> AsyncIterator[bytes]:
        """What there is, as it comes; raises what is wrong with it."""
        while not self.ended:
            chunk = await self._next()
            if self._taken > self._max_bytes:
                raise TooLarge
            if chunk:
                yield chunk

    async def discard(self) -> None:
        """Read it away, so that the answer is read."""
        # who is still sending does not read the answer; twice the allowed is enough politeness
        with contextlib.suppress(TooSlow, Gone):
            while not self.ended and self._taken <= 2 * self._max_bytes:
                await self._next()

    async def gone(self) -> None:
        """Return once the node has gone away; its body must have ended."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _next(self) -> bytes:
        try:
            async with asyncio.timeout_at(self._began + GRACE_S + self._taken / SLOWEST_BPS):
                message = await self._receive()
        except TimeoutError:
            raise TooSlow from None
        if message["type"] == "http.disconnect":
            raise Gone
        chunk: bytes = message.get("body", b"")
        self._taken += len(chunk)
        self.ended = not message.get("more_body", False)
        return chunk


class Answer:
    """The answer to a node: a whole one of a status alone, or one passed on as it comes."""

    def __init__(self, send: Send) -> None:
        self._send, self._started = send, False

    async def say(self, status: int) -> None:
        """A status alone; where an answer was under way, uvicorn ends the connection instead."""
        if not self._started:
            length = [(b"content-type", b"application/json"), (b"content-length", b"2")]
            await self.start(status, [*length, (b"connection", b"close")])
            await self._send({"type": "http.response.body", "body": b"{}"})

    async def start(self, status: int, headers: Headers) -> None:
        """Status and headers."""
        self._started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def more(self, chunk: bytes) -> None:
        """A piece of the body; Gone where the node does not take it."""
        try:
            async with asyncio.timeout(SEND_S):
                await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        except TimeoutError:
            raise Gone from None

    async def end(self) -> None:
        """No more pieces."""
        await self._send({"type": "http.response.body", "body": b""})
