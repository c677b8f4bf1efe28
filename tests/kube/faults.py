"""What goes wrong on the way: refusals, lost answers, delays, dropped watches; and a log of requests."""

import re
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from kube.store import Store

REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


@dataclass
class Fault:
    """One thing that happens to requests; ``happened`` counts them."""

    method: str
    path: re.Pattern
    times: int
    status: int | None
    retry_after: int | None
    before: bool
    delay_s: float
    happened: int = 0


@dataclass(frozen=True)
class Request:
    """One line of the request log."""

    verb: str
    resource: str
    name: str
    user: str
    status: int
    method: str
    path: str
    agent: str = ""
    time: float = field(default_factory=time.time)


class Faults:
    """What a test lets go wrong."""

    def __init__(self, store: Store):
        self._store, self._lock, self._active = store, threading.Lock(), []
        self.dropped = 0

    def add(
        self,
        *,
        method: str = ".*",
        path: str = ".*",
        times: int = 1,
        status: int | None = 500,
        retry_after: int | None = None,
        before: bool = False,
        delay_s: float = 0.0,
    ) -> Fault:
        """Let requests fail.

        Parameters
        ----------
        method, path
            Regular expressions: ``POST``, and what is found somewhere in the path with its query.
        times
            For how many requests.
        status
            What they are answered; None closes the connection without an answer, 0 only delays.
        retry_after
            Seconds in the header ``Retry-After``.
        before
            Carry the request out before it is answered so.
        delay_s
            How long to wait first.
        """
        fault = Fault(method, re.compile(path), times, status, retry_after, before, delay_s)
        with self._lock:
            self._active.append(fault)
        return fault

    def lose_response(self, *, method: str = ".*", path: str = ".*", times: int = 1) -> Fault:
        """Carry requests out, and close the connection without an answer."""
        return self.add(method=method, path=path, times=times, status=None, before=True)

    def drop_watches(self) -> None:
        """Close every open watch."""
        with self._store.changed:
            self.dropped += 1
            self._store.changed.notify_all()

    def compact(self) -> None:
        """Forget the history: watches from before now are answered 410, and open ones are closed."""
        self._store.compact()
        self.drop_watches()

    def clear(self) -> None:
        """Nothing goes wrong from now on."""
        with self._lock:
            self._active.clear()

    def next(self, method: str, path: str) -> Fault | None:
        """The fault of this request, if any."""
        with self._lock:
            for fault in self._active:
                if (
                    fault.happened < fault.times
                    and re.fullmatch(fault.method, method)
                    and fault.path.search(path)
                ):
                    fault.happened += 1
                    return fault
        return None


class Requests:
    """Every request since the start, or the last `clear`."""

    def __init__(self) -> None:
        self.log: list[Request] = []

    def clear(self) -> None:
        """Begin anew."""
        self.log = []

    def find(self, **wanted: object) -> list[Request]:
        """Those with all of these: ``find(verb="list", resource="pods", user=...)``."""
        return [r for r in list(self.log) if all(getattr(r, k) == v for k, v in wanted.items())]

    def count(self, **wanted: object) -> int:
        """How many of them."""
        return len(self.find(**wanted))

    def by(self, *keys: str) -> Counter:
        """Counts by some of ``verb``, ``resource``, ``user``, ``status``, ..."""
        return Counter(tuple(getattr(r, k) for k in keys) for r in list(self.log))
