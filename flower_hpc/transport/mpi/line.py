"""Bytes between the ranks of an MPI job, without burning the cores that others train on.

MPI libraries wait by spinning. A rank that has nothing to do would take a core from one that trains, and with
more ranks than cores everything would crawl. So waiting for news is a look now and then, at most 2 ms apart,
and MPI's own blocking calls move only what both ends are known to be ready for.
"""

import atexit
import io
import time
from collections.abc import Iterator, Sequence
from typing import Any

HEAD, REPLY, GO, DATA, STOP, SPLIT = range(1, 7)
"""Tags: a head for a rank; a reply's head; leave to send a reply's arrays; arrays; the end; a new group."""

SPIN_S, SHORTEST_S, LONGEST_S = 100e-6, 50e-6, 2e-3
LATER = 5
"""News are seen at most a fifth of the time later that they were waited for."""
TOGETHER = 1 << 20
"""Arrays below this many bytes are sent together."""
AT_ONCE = 1 << 30
"""MPI counts in 32 bits."""
GROUPS = 64


class Pause:
    """How long to wait for news: nothing at first, then longer and longer."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def news(self) -> None:
        """Something came: be quick again."""
        self._since = time.monotonic()

    @property
    def seconds(self) -> float:
        """Until the next look."""
        idle = time.monotonic() - self._since
        return 0.0 if idle < SPIN_S else min(LONGEST_S, max(SHORTEST_S, idle / LATER))

    def take(self) -> None:
        """Wait so long."""
        time.sleep(self.seconds)  # of 0 too: another thread's, or process's, turn


class Line:
    """One rank's end.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
        Whose ranks talk; a duplicate of it is used, so that nobody else's messages are seen.
    """

    def __init__(self, comm: Any) -> None:
        from mpi4py import MPI

        self._mpi, self._comm = MPI, comm.Dup()
        self.rank: int = comm.Get_rank()
        self.size: int = comm.Get_size()
        self._groups: dict[tuple[int, ...], Any] = {}
        self._posted: list[tuple[Any, bytes]] = []
        self.ended = False
        """On rank 0: whether the others know that it is over."""
        self._doomed: int | None = None
        atexit.register(self.leave)

    # -- heads ---------------------------------------------------------------------------------------

    def send(self, to: int, tag: int, head: bytes) -> None:
        """Send a head, and wait until it is on its way; meanwhile the core is another's."""
        request = self._comm.Isend([head, self._mpi.BYTE], dest=to, tag=tag)
        pause = Pause()
        while not request.Test():
            pause.take()

    def post(self, to: int, tag: int, head: bytes) -> None:
        """Send a head to a rank that may be busy: it goes out while :meth:`look` is called."""
        self._posted = [(request, one) for request, one in self._posted if not request.Test()]
        self._posted.append((self._comm.Isend([head, self._mpi.BYTE], dest=to, tag=tag), head))

    def look(self, tag: int, source: int | None = None) -> tuple[int, bytes] | None:
        """A head that has come, and from whom; None where there is none."""
        status = self._mpi.Status()
        came = self._comm.Improbe(self._mpi.ANY_SOURCE if source is None else source, tag, status)
        if came is None:
            return None
        head = bytearray(status.Get_count(self._mpi.BYTE))
        came.Recv([head, self._mpi.BYTE])
        return status.Get_source(), bytes(head)

    def wait(self, tag: int, source: int) -> bytes:
        """The next head from a rank."""
        pause = Pause()
        while (found := self.look(tag, source)) is None:
            pause.take()
        return found[1]

    # -- arrays; the other end is at the matching call -----------------------------------------------

    def send_data(self, to: int, data: Sequence[bytes]) -> None:
        """Send the bytes of arrays to a rank that is at :meth:`receive_data`."""
        for part in _parcels(data):
            for piece in _pieces(part):
                self._comm.Send([piece, self._mpi.BYTE], dest=to, tag=DATA)

    def receive_data(self, source: int, sizes: Sequence[int]) -> list[bytes]:
        """What :meth:`send_data` sends there."""

        def fill(piece: memoryview) -> None:
            self._comm.Recv([piece, self._mpi.BYTE], source=source, tag=DATA)

        return _receive(sizes, fill)

    def can_spread(self, ranks: Sequence[int]) -> bool:
        """Whether these ranks, and we, are or may become a group."""
        group = (0, *ranks)
        return len(group) > 2 and (group in self._groups or len(self._groups) < GROUPS)

    def spread(self, ranks: Sequence[int], data: Sequence[bytes]) -> None:
        """Broadcast the bytes of arrays from rank 0 to ranks that are all at :meth:`take_spread`."""
        comm = self._group(ranks)
        for part in _parcels(data):
            for piece in _pieces(part):
                comm.Bcast([piece, self._mpi.BYTE], root=0)

    def take_spread(self, ranks: Sequence[int], sizes: Sequence[int]) -> list[bytes]:
        """What :meth:`spread` sends."""
        comm = self._group(ranks)
        return _receive(sizes, lambda piece: comm.Bcast([piece, self._mpi.BYTE], root=0))

    def _group(self, ranks: Sequence[int]) -> Any:
        group = (0, *ranks)
        if group not in self._groups:
            world = self._comm.Get_group()
            members = world.Incl(list(group))
            self._groups[group] = self._comm.Create_group(members, SPLIT)
            members.Free()
            world.Free()
        return self._groups[group]

    # -- the end -------------------------------------------------------------------------------------

    def abort(self, code: int) -> None:
        """End the whole job at once, with this exit code."""
        self._comm.Abort(code)

    def doom(self, code: int) -> None:
        """End the whole job when this rank leaves it, once all is said: others would not."""
        self._doomed = code

    def leave(self) -> None:
        """Leave MPI when all others do, at the latest at exit: nobody needs this process from here on."""
        if self._mpi.Is_finalized():
            return
        if self._doomed is not None:
            self.abort(self._doomed)
        self._mpi.Finalize()


def _parcels(data: Sequence[bytes]) -> list[bytes]:
    """Small arrays joined with their neighbours; large ones as they are."""
    parts: list[bytes] = []
    for group in _grouped([len(one) for one in data]):
        parts.append(data[group[0]] if len(group) == 1 else b"".join(data[i] for i in group))
    return parts


def _grouped(sizes: Sequence[int]) -> list[list[int]]:
    """The indices that travel together; both ends come to the same."""
    groups: list[list[int]] = []
    room = 0
    for i, size in enumerate(sizes):
        if groups and size <= room:
            groups[-1].append(i)
            room -= size
        else:
            groups.append([i])
            room = TOGETHER - size
    return groups


def _pieces(part: bytes | memoryview) -> Iterator[memoryview]:
    for start in range(0, len(part), AT_ONCE):
        with memoryview(part)[start : start + AT_ONCE] as piece:
            yield piece


def _receive(sizes: Sequence[int], fill: Any) -> list[bytes]:
    found: list[bytes] = []
    for group in _grouped(sizes):
        part = _filled(sum(sizes[i] for i in group), fill)
        start = 0
        for i in group:
            found.append(part[start : start + sizes[i]])  # of the whole: the same object, not a copy
            start += sizes[i]
    return found


def _filled(size: int, fill: Any) -> bytes:
    """So many bytes, received straight into the object that they are kept in: what BytesIO holds is bytes."""
    room = io.BytesIO()
    if size:
        room.seek(size - 1)
        room.write(b"\0")
        with room.getbuffer() as view:
            for piece in _pieces(view):
                fill(piece)
    return room.getvalue()
