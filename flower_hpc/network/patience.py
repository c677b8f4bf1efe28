"""uvicorn's HTTP/1.1 with an end to its patience: for who sends no request, or never the whole of one."""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 20.0


def patient_protocol(max_connections: int, head_s: float = HEAD_S) -> type[H11Protocol]:
    """A protocol class for ``uvicorn.Config(http=...)``.

    Parameters
    ----------
    max_connections : int
        At once; more are closed.
    head_s : float
        How long the head of a request may take, from the connection's start or the last answer. Default 20.
    """

    class PatientProtocol(H11Protocol):
        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > max_connections:
                transport.abort()
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._calm()

        def _watch(self) -> None:
            if self.conn.their_state is not h11.IDLE:
                self._calm()
            elif self._late is None:  # one that is under way is not put off by another byte
                self._late = self.loop.call_later(head_s, self.transport.abort)

        def _calm(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

    return PatientProtocol
