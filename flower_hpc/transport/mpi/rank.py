"""A rank that hosts nodes: it takes one message after the other; its ClientApp stays warm between them."""

import logging
import os
import pickle
import socket
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable

from ...protocol import JOB_STATE_ENV, NODE_NAME, NODE_STATE_ENV, NUM_PARTITIONS, PARTITION_ID
from ..base import identify, raised
from .line import GO, HEAD, REPLY, STOP, Line
from .parcel import pack, unpack

log = logging.getLogger(__name__)

INLINE, REPLY_INLINE = 16 << 10, 256 << 10
"""Arrays of so many bytes in all travel with the head: of a message, which are others', too; of a reply."""
WATCH_S = 0.5

Scalar = bool | int | float | str


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What every rank knows of the run.

    Parameters
    ----------
    nodes : int
        How many there are: ids from 1, names from ``node-0``.
    run_config : mapping
        The app's.
    node_config : mapping
        Of every node, beside its name and partition.
    state : Path, optional
        Folder in which each node has one of its own, for what outlives the job; default none.
    run_id : int
        Flower's.
    run_name : str
        Ours; default none.
    """

    nodes: int
    run_config: Mapping[str, Scalar] = field(default_factory=dict)
    node_config: Mapping[str, Scalar] = field(default_factory=dict)
    state: Path | None = None
    run_id: int = 1
    run_name: str = ""

    def epitaph(self, node: str = "") -> str:
        """What is to be said should a rank die now."""
        work = f" while it worked on {node}" if node else ""
        again = f"; with --resume {self.run_name} in place of the app it goes on from its last checkpoint"
        return f"{work}. MPI cannot go on without it and ends the job{again if self.run_name else ''}"

    def name(self, node_id: int) -> str:
        """Of a node."""
        return f"node-{node_id - 1}"

    def host(self, node_id: int, ranks: int) -> int:
        """The rank that hosts a node, always the same: what the node keeps in memory stays there."""
        return 1 + (node_id - 1) % ranks

    def context(self, node_id: int) -> Context:
        """A new node's."""
        place: dict[str, Scalar] = {PARTITION_ID: node_id - 1, NUM_PARTITIONS: self.nodes}
        config = dict(self.node_config) | {NODE_NAME: self.name(node_id)} | place
        return Context(self.run_id, node_id, config, RecordDict(), dict(self.run_config))


class Rank:
    """The nodes of one rank, in a process of :func:`~flower_hpc.transport.mpi.guard.guarded`.

    Parameters
    ----------
    line : Line
        To rank 0.
    setup : Setup
        The run.
    tell : callable
        Called with what is to be said should the rank die from now on.
    """

    def __init__(self, line: Line, setup: Setup, tell: Callable[[str], None] = lambda words: None) -> None:
        self._line, self._setup, self._tell = line, setup, tell
        self._contexts: dict[int, Context] = {}
        self._held: dict[int, bytes] = {}
        self._watch = _Watch(line, Path(os.environ[JOB_STATE_ENV]))  # where budgets look for the file `stop`

    def serve(self, load: Callable[[], ClientAppCallable]) -> None:
        """Load the app, then answer messages until rank 0 says that it is over."""
        identify()
        self._tell(self._setup.epitaph())
        try:
            app, error = load(), ""
        except BaseException:
            app, error = None, traceback.format_exc()
        self._send({"ready": True, "host": socket.gethostname(), "error": error})
        while True:
            head = pickle.loads(self._line.wait(HEAD, 0))
            for number in head.get("drop", ()):
                del self._held[number]
            if head["kind"] == "stop":
                return
            if head["kind"] == "take":
                self._take(head)
            elif app is not None:
                try:
                    self._work(app, head)
                except (Exception, SystemExit) as failure:  # of ours, as where the disk is full
                    log.exception("a message cannot be answered")
                    self._send({"failed": f"{type(failure).__name__}: {failure}"})
            if self._watch.over:
                return

    def _take(self, head: Mapping[str, Any]) -> None:
        ranks, sizes = head["ranks"], head["sizes"]
        alone = ranks is None
        data = self._line.receive_data(0, sizes) if alone else self._line.take_spread(ranks, sizes)
        self._held |= zip(head["numbers"], data, strict=True)

    def _work(self, app: ClientAppCallable, head: Mapping[str, Any]) -> None:
        data = head["data"] if "data" in head else [self._held[number] for number in head["numbers"]]
        message: Message = unpack(head["text"], data)
        del data
        node_id = message.metadata.dst_node_id
        with self._node(node_id):
            reply = answer(app, message, self._context(node_id))
        if self._watch.over:  # nobody waits for it
            self._send({"over": True})
            return
        try:
            text, arrays = pack(reply)
        except Exception as error:  # the app has put something into it that cannot travel
            log.exception("the reply cannot be sent")
            text, arrays = pack(raised(error, message))
        sizes = [len(one) for one in arrays]
        if sum(sizes) <= REPLY_INLINE:
            self._send({"text": text, "data": arrays})
        else:
            self._send({"text": text, "sizes": sizes})
            # rank 0 takes large replies when it has room for them
            self._line.wait(GO, 0)
            self._line.send_data(0, arrays)

    def _send(self, head: Mapping[str, Any]) -> None:
        self._line.send(0, REPLY, pickle.dumps(head))

    def _context(self, node_id: int) -> Context:
        if node_id not in self._contexts:
            self._contexts[node_id] = self._setup.context(node_id)
        return self._contexts[node_id]

    @contextmanager
    def _node(self, node_id: int) -> Iterator[None]:
        name = self._setup.name(node_id)
        self._tell(self._setup.epitaph(name))
        if self._setup.state is not None:
            folder = self._setup.state / name
            folder.mkdir(parents=True, exist_ok=True)
            os.environ[NODE_STATE_ENV] = str(folder)
        try:
            with self._watch.working():
                yield
        finally:
            self._tell(self._setup.epitaph())


def answer(app: ClientAppCallable, message: Message, context: Context) -> Message:
    """The app's reply, or Flower's error reply where it raises."""
    try:
        reply = app(message, context)
        if not isinstance(reply, Message):
            raise TypeError(f"a ClientApp must return a Message, got {type(reply).__name__}")
    except BaseException as error:  # a rank that ends ends the job
        log.exception("the ClientApp raised an error")
        return raised(error, message)
    return reply


class _Watch:
    """Sees, while a ClientApp works, that the run is over, and has the work stop.

    MPI is used by one thread at a time: while the app works, its rank is not in MPI.
    """

    def __init__(self, line: Line, folder: Path) -> None:
        self.over = False
        self._line, self._folder = line, folder
        self._working = threading.Condition()
        self._busy = False
        threading.Thread(target=self._look, name="flower-hpc-watch", daemon=True).start()

    @contextmanager
    def working(self) -> Iterator[None]:
        with self._working:
            self._busy = True
            self._working.notify()
        try:
            yield
        finally:
            with self._working:
                self._busy = False

    def _look(self) -> None:
        while not self.over:
            with self._working:
                self._working.wait_for(lambda: self._busy)
                # short work ends before it is worth a look
                if self._working.wait_for(lambda: not self._busy, WATCH_S):
                    continue
                self.over = self._line.look(STOP, 0) is not None
        self._folder.mkdir(mode=0o700)
        (self._folder / "stop").touch()
