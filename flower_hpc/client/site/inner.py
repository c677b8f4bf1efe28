"""A worker rank: it answers as the site's clients do, with apps that come with the messages and stay warm."""

import os
import pickle
import socket
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable

from ...clock import WALL
from ...protocol import DEADLINE_S, config_of
from ...transport.mpi import Setup
from ..parcel import Order, find_modules, restamp
from .call import Scalar

TASK = "flower-hpc.site-task"
MEET = "query.flower_hpc_meet"
HOST, PORT = "host", "port"
RUNS = 8
"""So many runs keep their clients' states and their loaded app: nobody says here which ones are over."""


@dataclass(frozen=True, kw_only=True)
class SiteSetup(Setup):
    """What every rank knows: as of any job, and whose clients they are."""

    site: str

    def name(self, node_id: int) -> str:
        """Of a client."""
        return f"{self.site}/client-{node_id - 1}"


@dataclass(frozen=True)
class Task:
    """What a client's message carries beside the node's own.

    Parameters
    ----------
    order : Order
        The app.
    run_id : int
        Of the run.
    run_config, node_config : mapping
        Of the client.
    turns : int
        How many clients of its rank share what is left of the budget, itself among them.
    variables : mapping of str to str
        Of the environment while it works; default none.
    """

    order: Order
    run_id: int
    run_config: Mapping[str, Scalar]
    node_config: Mapping[str, Scalar]
    turns: int = 1
    variables: Mapping[str, str] = field(default_factory=dict)

    def record(self) -> ConfigRecord:
        """As a record of a message."""
        return ConfigRecord({TASK: pickle.dumps(self)})


class Clients:
    """The clients that one rank hosts, and what they keep of the latest runs."""

    def __init__(self) -> None:
        self._runs: OrderedDict[int, dict[int, Context]] = OrderedDict()
        self._held: socket.socket | None = None

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer as the client that the message is for."""
        if message.metadata.message_type == MEET:
            return Message(RecordDict({TASK: self._place()}), reply_to=message)
        task = _opened(message)
        own = self._context(task, context.node_id)
        find_modules(task.order.path)
        app = _app(task.run_id, task.order.app)
        _share(message, task)
        with _set(task.variables):
            reply = app(message, own)
        if task.variables.get("RANK", "0") != "0" and reply.has_content():
            return Message(RecordDict(), reply_to=message)  # the first one's counts
        return reply

    def _context(self, task: Task, node_id: int) -> Context:
        own = self._runs.setdefault(task.run_id, {})
        self._runs.move_to_end(task.run_id)
        if len(self._runs) > RUNS:
            self._runs.popitem(last=False)
        if node_id not in own:
            configs = dict(task.node_config), RecordDict(), dict(task.run_config)
            own[node_id] = Context(task.run_id, node_id, *configs)
        return own[node_id]

    def _place(self) -> ConfigRecord:
        """Our host, and a port that stays ours until the next meeting: nobody else is given it meanwhile.

        Who listens at it with SO_REUSEADDR, as torch does, may, since we do not listen ourselves.
        """
        if self._held is not None:
            self._held.close()
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.bind(("", 0))
        return ConfigRecord({HOST: socket.gethostname(), PORT: int(self._held.getsockname()[1])})


@dataclass(frozen=True)
class Loader:
    """What ranks load before the first message: nothing, since apps come with messages."""

    def client(self) -> ClientAppCallable:
        """What answers."""
        return Clients()


@lru_cache(maxsize=RUNS)
def _app(run_id: int, app: bytes) -> ClientAppCallable:
    """Loaded once for a run: what the app keeps in its module and its closures stays."""
    loaded: ClientAppCallable = pickle.loads(app)
    return loaded


def _opened(message: Message) -> Task:
    data = message.content.config_records[TASK][TASK]
    assert isinstance(data, bytes)
    del message.content[TASK]
    task: Task = pickle.loads(data)
    return task


def _share(message: Message, task: Task) -> None:
    """Let the budget end when the node's does; clients that take turns share what is left."""
    if task.order.ends_at is None:
        return
    # the deadline itself: a KeepBudget that comes after this counts it from now
    left = max(0.0, task.order.ends_at - WALL.wall())
    config_of(message)[DEADLINE_S] = left / task.turns
    restamp(message, WALL.wall() + left / task.turns)


@contextmanager
def _set(variables: Mapping[str, str]) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for key, value in before.items():
            os.environ.pop(key, None)
            if value is not None:
                os.environ[key] = value
