"""The site's MPI job: ``mpiexec -n RANKS python -m flower_hpc.client.site.job FOLDER NODES TOGETHER OWNER``.

Rank 0 listens at ``FOLDER/socket`` for messages of the SuperNode ``OWNER`` (pid:creation time) and has the
other ranks answer them. It ends with the SuperNode. There is one such job at a time in a folder.
"""

import fcntl
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ...clock import WALL
from ...errors import FlowerHpcError, JobFailed, RunError
from ...local_socket import address
from ...process import find
from ...protocol import NODE_STATE_ENV
from ...transport.mpi import Line
from ...transport.mpi.guard import Note, guarded, rank_of_environment
from ...transport.mpi.job import VISIBLE, dismiss, federation, host_nodes, join, leading
from ..parcel import Order
from .ask import SOCKET
from .call import Call, Said
from .fan import Fan
from .inner import Loader, SiteSetup
from .wire import check_peer, receive, send

log = logging.getLogger(__name__)
LOCK, LOCK_S, LOOK_S = "lock", 60.0, 1.0


def main() -> None:
    """Be a rank."""
    folder, nodes, together, owner = sys.argv[1:]
    pid, _, created = owner.partition(":")
    guarded(
        lambda note: _rank(Path(folder), int(nodes), together == "1", note, _alive(int(pid), float(created)))
    )


def _rank(folder: Path, nodes: int, together: bool, note: Note, alive: Callable[[], bool]) -> int:
    visible = os.environ.get(VISIBLE)
    try:
        line = join()
        if together:
            # each process sees all GPUs of its host, and takes that of its LOCAL_RANK, as under torchrun
            os.environ.pop(VISIBLE, None)
            os.environ |= {VISIBLE: visible} if visible is not None else {}
        logging.basicConfig(format=f"rank {line.rank}: %(message)s", level=logging.WARNING)
        if line.rank:
            host_nodes(line, note.write)
        else:
            site = Path(os.environ.get(NODE_STATE_ENV, folder)).name
            note.write(", which serves the others")
            with leading(line):
                _serve(line, SiteSetup(nodes=nodes, site=site), folder, together, alive)
    except FlowerHpcError as error:
        if not rank_of_environment():  # once is enough
            print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    finally:
        note.write("")
    line.leave()
    return 0


def _serve(line: Line, setup: SiteSetup, folder: Path, together: bool, alive: Callable[[], bool]) -> None:
    try:
        lock = _locked(folder / LOCK)
    except BaseException:
        dismiss(line)
        raise
    with lock, federation(line, setup, Loader()) as grid, _listening(folder / SOCKET) as listener:
        fan = Fan(grid, setup.nodes, line.size - 1, together)
        door = _Door(fan, folder / SOCKET, alive)
        while alive() and door.open:
            with suppress(TimeoutError):
                connection, _ = listener.accept()
                with connection:
                    door.serve(connection)


class _Door:
    """Answers one call after the other, all of one app: another one's modules may have the same names."""

    def __init__(self, fan: Fan, path: Path, alive: Callable[[], bool]) -> None:
        self._fan, self._path, self._alive = fan, path, alive
        self._modules: tuple[str, ...] | None = None
        self.open = True

    def serve(self, connection: socket.socket) -> None:
        """Answer a call; one that goes away is none of our worries."""
        connection.settimeout(None)
        try:
            check_peer(connection)
            call: Call = receive(connection)
            said = self._answer(call, lambda: self._alive() and not _is_gone(connection))
            if not self.open:
                self._path.unlink(missing_ok=True)  # the next one finds nobody, and starts another job
            send(connection, said)
        except (OSError, EOFError) as error:
            log.warning("a message's process is gone: %s", error)
        except JobFailed as error:
            log.warning("refused: %s", error)

    def _answer(self, call: Call, alive: Callable[[], bool]) -> Said:
        modules = _modules(call.order)
        if self._modules not in (None, modules):
            self.open = False
            return Said(other=True)
        self._modules = modules
        said = self._fan.answer(call, alive)
        self.open = not self._fan.stuck
        return said


def _is_gone(connection: socket.socket) -> bool:
    try:
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _modules(order: Order) -> tuple[str, ...]:
    """Folders of the app: those that are not this process's anyway."""
    known = {os.path.abspath(entry) for entry in sys.path}
    return tuple(entry for entry in order.path if entry not in known and os.path.isdir(entry))


def _locked(path: Path) -> IO[bytes]:
    """The folder's lock, held by this process as long as it lives; RunError where another job keeps it."""
    file, until = path.open("wb"), WALL.now() + LOCK_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if WALL.now() > until:
                raise RunError(f"another job of this site still runs, and holds {path}") from None
            WALL.sleep(LOOK_S)


@contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    path.unlink(missing_ok=True)  # of a job that was killed
    with socket.socket(socket.AF_UNIX) as listener:
        with address(path) as where:
            listener.bind(where)
        listener.listen()
        listener.settimeout(LOOK_S)
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


def _alive(pid: int, created: float) -> Callable[[], bool]:
    """Whether the SuperNode runs; another process may get its number."""
    return lambda: find(pid, created) is not None


if __name__ == "__main__":
    main()
