"""What travels to a batch job and back: a message, its node's context and the app that is to answer it.

The message and the context travel as they are, so that pickling writes their arrays once, straight from where
they lie. The app travels as a small pickle of its own, which is opened only once its modules can be found.
"""

import os
import pickle
import socket
import sys
import traceback
from dataclasses import dataclass

import cloudpickle
import psutil
from flwr.app import Context, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable

from ..clock import WALL, Clock
from ..protocol import DEADLINE_S, RECEIVED_AT, config_of


@dataclass(frozen=True)
class Order:
    """The app and how to run it: what a message needs beside itself and its context.

    Parameters
    ----------
    app : bytes
        The pickled callable.
    path : tuple of str
        Folders that its modules may lie in.
    submitted : float
        When it was handed over, in seconds since the epoch.
    ends_at : float, optional
        When the message's budget ends, likewise; default never.
    """

    app: bytes
    path: tuple[str, ...]
    submitted: float
    ends_at: float | None = None

    @classmethod
    def of(cls, app: ClientAppCallable, submitted: float, ends_at: float | None) -> "Order":
        """Pack ``app``, to be found where this process finds its modules."""
        path = tuple(os.path.abspath(entry) for entry in sys.path)
        return cls(cloudpickle.dumps(app), path, submitted, ends_at)


@dataclass(frozen=True)
class Answer:
    """What came of it: the reply and the context's new state, or an error.

    Parameters
    ----------
    began : float
        When the job started, in seconds since the epoch: its process, if it was started for this.
    host : str
        Where it ran.
    reply : Message, optional
        Missing where the app raised an error.
    state : RecordDict, optional
        Of the context, after the app changed it.
    error : str
        Its type and words; default empty.
    trace : str
        Its traceback; default empty.
    """

    began: float
    host: str
    reply: Message | None = None
    state: RecordDict | None = None
    error: str = ""
    trace: str = ""


def run(order: Order, msg: Message, context: Context, clock: Clock = WALL) -> Answer:
    """Answer ``msg`` here, in a process that may know nothing of the app so far."""
    began, host = _began(order.submitted, clock), socket.gethostname()
    try:
        find_modules(order.path)
        app: ClientAppCallable = pickle.loads(order.app)
        if order.ends_at is not None:
            restamp(msg, order.ends_at, clock)
        reply = app(msg, context)
        return Answer(began, host, reply, context.state)
    except (Exception, SystemExit) as error:  # as text: its class may be unknown where the answer is read
        words = " ".join(f"{type(error).__name__}: {error}".split())
        return Answer(began, host, error=words, trace=traceback.format_exc())


def restamp(msg: Message, ends_at: float, clock: Clock = WALL) -> None:
    """Let the budget end at a wall time: another host's monotonic clock says nothing here."""
    config = config_of(msg)
    seconds = config[DEADLINE_S]
    assert isinstance(seconds, int | float)  # else there was no end
    config[RECEIVED_AT] = clock.now() + (ends_at - clock.wall()) - seconds


def find_modules(path: tuple[str, ...]) -> None:
    """Put those folders first that exist here and are not looked through already, in their order."""
    known = {os.path.abspath(entry) for entry in sys.path}
    sys.path[:0] = [entry for entry in path if entry not in known and os.path.exists(entry)]


def _began(submitted: float, clock: Clock) -> float:
    started: float = psutil.Process().create_time()
    return started if started >= submitted else clock.wall()  # a pool's process waited for work
