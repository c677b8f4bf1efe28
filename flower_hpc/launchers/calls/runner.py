"""In a pod: fetches one call from the process that made it, runs it, and sends the result back.

``python -m flower_hpc.launchers.calls.runner FOLDER``; see :mod:`.server` for the other side.

It ends by itself when nobody waits any more: at once where it is told so, and where nothing is heard for
``patience_s`` seconds it is told to stop, and killed after as long again. What is asked to leave (TERM) finds
a file ``stop`` in ``$FLOWER_HPC_JOB_STATE``, so that the app ends early and its work so far is sent back.
"""

import contextlib
import http.client
import io
import json
import os
import pickle
import socket
import ssl
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cloudpickle

from ...clock import WALL
from ...errors import JobFailed
from ..attended import BEATS, told_to_stop
from . import luggage
from .chunked import PIECE, chunked
from .server import ALIVE, CALL, RESULT, SILENCE_S, WORKER

WHERE = "call.json"
PAUSE_S, LOOK_S, CALM_S = 1.0, 0.25, 30.0


class NobodyWaitsError(Exception):
    """The process that made the call has given it up, or another worker has it."""


@dataclass(frozen=True)
class Line:
    """How to reach who made the call.

    Parameters
    ----------
    url, name, token, ca : str
        Of the server, of the call, the call's secret, the server's certificate.
    patience_s : float
        How long it may be silent.
    """

    url: str
    name: str
    token: str = field(repr=False)
    ca: str
    patience_s: float

    @classmethod
    def read(cls, folder: Path) -> "Line":
        """As the job's Secret holds it."""
        return cls(**json.loads((folder / WHERE).read_text("utf-8")))

    def fetch(self) -> Any:
        """The call: a function, its arguments and its keywords. This process is made ready for it."""
        return self._patiently(self._fetch)

    def deliver(self, good: bool, value: Any) -> None:
        """Send the result."""
        self._patiently(lambda: self._send(good, value))

    def alive(self) -> bool | None:
        """Whether somebody waits; None where that cannot be told."""
        try:
            with self._ask("GET", ALIVE):
                return True
        except NobodyWaitsError:
            return False
        except (OSError, http.client.HTTPException):
            return None

    def _fetch(self) -> Any:
        with self._ask("GET", CALL) as response:
            body = io.BufferedReader(response, PIECE)
            prepare(pickle.load(body))
            return pickle.load(body)

    def _send(self, good: bool, value: Any) -> None:
        def write(connection: http.client.HTTPSConnection) -> None:
            with chunked(connection.send) as body:
                cloudpickle.dump((good, value), body)

        if self.alive() is False:  # who refuses while a model is being sent cannot be heard
            raise NobodyWaitsError
        with self._ask("POST", RESULT, write):
            return

    @contextlib.contextmanager
    def _ask(
        self, method: str, what: str, write: Callable[[http.client.HTTPSConnection], None] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        connection = self._connection(CALM_S if what == ALIVE else SILENCE_S)
        try:
            connection.putrequest(method, f"/{self.name}/{what}")
            connection.putheader("Authorization", f"Bearer {self.token}")
            connection.putheader(WORKER, socket.gethostname())
            if write is not None:
                connection.putheader("Transfer-Encoding", "chunked")
            connection.endheaders()
            if write is not None:
                write(connection)
            response = connection.getresponse()
            if response.status in (403, 404, 409, 410):
                raise NobodyWaitsError
            if response.status >= 300:
                raise ConnectionError(f"HTTP {response.status}")
            yield response
        finally:
            connection.close()

    def _connection(self, silence_s: float) -> http.client.HTTPSConnection:
        # not create_default_context: a certificate that signs itself is no chain, and it is all there is
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.load_verify_locations(cadata=self.ca)
        there = urlsplit(self.url)
        return http.client.HTTPSConnection(there.hostname or "", there.port, timeout=silence_s, context=tls)

    def _patiently(self, act: Callable[[], Any]) -> Any:
        until = WALL.now() + self.patience_s
        while True:
            try:
                return act()
            except (OSError, http.client.HTTPException, EOFError) as error:
                if WALL.now() > until:
                    words = " ".join(str(error).split())
                    raise JobFailed(f"{self.url} cannot be reached: {words}") from error
                WALL.sleep(PAUSE_S)


def prepare(ready: dict[str, Any]) -> None:
    """Make this process like the one that made the call: its variables, and its app's modules."""
    os.environ.update(ready["env"])
    luggage.unpack(ready["apps"], Path(tempfile.mkdtemp(prefix="flower-hpc-apps-")))


def outcome_of(fn: Callable[..., Any], args: Any, kwargs: Any) -> tuple[bool, Any]:
    """What the call returns, or the error that it raises, with its traceback as a note."""
    try:
        return True, fn(*args, **kwargs)
    except (Exception, SystemExit) as error:
        return False, told(error)


def told(error: BaseException) -> JobFailed:
    """An error whose class is known wherever it is read."""
    words = " ".join(f"{type(error).__name__}: {error}".split())
    failed = JobFailed(words)
    failed.add_note("".join(traceback.format_exception(error)))
    return failed


def watch(line: Line, stop: Path) -> None:
    """End this process when nobody waits for it."""
    heard, told_so = WALL.now(), False
    while True:
        until = WALL.now() + line.patience_s / BEATS
        while WALL.now() < until and stop.exists() == told_so:
            WALL.sleep(LOOK_S)
        told_so = stop.exists()  # whoever asks it to leave may have given it up: asked at once
        answer = line.alive()
        if answer is False:
            end("nobody waits for this job any more")
        if answer:
            heard = WALL.now()
        elif WALL.now() - heard > line.patience_s:
            print(f"{line.url} is silent: this job is to stop", file=sys.stderr, flush=True)
            stop.touch()
            WALL.sleep(line.patience_s)
            end("nobody waits for this job any more")


def end(words: str) -> None:
    """Whatever the app is at."""
    print(words, file=sys.stderr, flush=True)
    os._exit(1)


def work(line: Line, stop: Path) -> None:
    """One call from end to end."""
    try:
        call = line.fetch()
    except (NobodyWaitsError, JobFailed):
        raise
    except Exception as error:  # whatever unpickling leads to, such as a package that the image lacks
        return line.deliver(False, told(error))
    threading.Thread(target=watch, args=(line, stop), daemon=True).start()
    good, value = outcome_of(*call)
    del call  # the model that was sent: it goes before the one that is sent back is pickled
    try:
        return line.deliver(good, value)
    except (NobodyWaitsError, JobFailed):
        raise
    except Exception as error:  # a value that cannot be pickled
        return line.deliver(False, told(error))


def main() -> int:
    """Do what the folder says; exit code 1 where nothing came of it."""
    line = Line.read(Path(sys.argv[1]))
    try:
        with told_to_stop() as stop:
            work(line, stop)
    except NobodyWaitsError:
        end("nobody waits for this job any more")
    except JobFailed as error:
        end(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
