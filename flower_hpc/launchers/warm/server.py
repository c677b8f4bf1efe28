"""The fork server of one SuperNode: ``python -m ... SOCKET REAL PACKAGES PARENT``.

It has one thread and answers one call after the other: a SuperNode works on one message at a time. Nothing of
an app is ever imported here, and no GPU is touched: a fork of a process that holds one is of no use.

A caller sends its call and gets a byte from the fork, then its exit code from here; it may send the numbers
of signals meanwhile. One that is gone has its fork killed. Calls of other users are refused.

A server that is killed is started again (:mod:`.keep`); one that ends by itself, for good, says why and takes
its socket away.
"""

import functools
import gc
import importlib
import importlib.metadata
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...local_socket import address, is_ours
from ...parent import end_with_parent
from .call import Call, Fresh, close, say
from .keep import AGAIN_S, keep

NAME = "flwr-clientapp"
GPUS = ("/dev/nvidia", "/dev/kfd")
Entry = Callable[[], Callable[[], None]]


@dataclass
class _Fork:
    connection: socket.socket
    names: int
    left: bool = False
    """Whether its caller is gone."""


class Unfit(Exception):
    """Forks of this process would suffer from what it has imported."""


class Server:
    """Forks for calls, and learns from them what to import.

    Parameters
    ----------
    listener : socket
        Where calls come in.
    packages : iterable of str
        Top-level packages that may be imported here.
    entry : callable
        Imports the command that forks are to be, and returns it.
    """

    def __init__(self, listener: socket.socket, packages: Iterable[str], entry: Entry) -> None:
        self._listener, self._packages, self._entry = listener, frozenset(packages), functools.cache(entry)
        self._forks: dict[int, _Fork] = {}
        self._tried: set[str] = set()
        self._known: frozenset[str] | None = None
        self._wake, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)

    def serve(self) -> Fresh:
        """Answer calls for ever; returns in each fork."""
        while True:
            waiting: list[Any] = [self._wake, self._listener]
            waiting += [fork.connection for fork in self._forks.values() if not fork.left]
            ready, _, _ = select.select(waiting, [], [])
            if self._wake in ready:
                os.read(self._wake, 4096)
                self._reap()
            for pid, fork in self._forks.items():
                if fork.connection in ready:
                    fork.left = _pass_on(fork.connection, pid)
            if self._listener in ready and (fresh := self._answer()) is not None:
                return fresh

    def _answer(self) -> Fresh | None:
        connection, _ = self._listener.accept()
        if not is_ours(connection):
            say("a call of another user is refused")
            connection.close()
            return None
        try:
            call = Call.read(connection)
        except (OSError, ValueError) as error:
            say(f"a call could not be read: {error}")
            connection.close()
            return None
        command = self._entry()
        self._known = self._known or frozenset(sys.modules)
        names = os.memfd_create("names")  # not a pipe, which a fork of the fork could hold open
        sys.stdout.flush()  # or each fork would write what is left there
        gc.freeze()  # what is there now is not written to by the forks' garbage collection
        pid = os.fork()
        if pid == 0:
            self._forget(connection)
            return Fresh(call, command, names, self._known)
        close(call.files)
        self._forks[pid] = _Fork(connection, names)
        return None

    def _forget(self, connection: socket.socket) -> None:
        """In a fork: tell the caller, and let go of what is the server's."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            connection.sendall(b"+")  # from here on the caller must not start another
        except OSError:
            os._exit(1)  # it is gone
        for each in (self._listener, connection, *(fork.connection for fork in self._forks.values())):
            each.close()
        close([self._wake, self._waker, *(fork.names for fork in self._forks.values())])

    def _reap(self) -> None:
        while self._forks:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            if (fork := self._forks.pop(pid, None)) is None:
                continue  # of something that was imported
            code = os.waitstatus_to_exitcode(status)
            with fork.connection, suppress(OSError):  # its caller may be gone
                fork.connection.sendall(str(code if code >= 0 else 128 - code).encode())
            with open(fork.names) as names:
                names.seek(0)
                self._learn(names.read().split())

    def _learn(self, names: Iterable[str]) -> None:
        """Import what a fork had to, as far as that is allowed."""
        for name in names:
            if name in sys.modules or name in self._tried or name.partition(".")[0] not in self._packages:
                continue
            self._tried.add(name)
            try:
                importlib.import_module(name)
            except Exception as error:
                if "." not in name:  # others may never have been files
                    say(f"{name} is not imported ahead: {error}")
            if why := unfit():
                raise Unfit(f"{name} {why} when imported")


def unfit() -> str:
    """What an import has done that forks would suffer from; empty where nothing."""
    if threading.active_count() > 1:
        return "starts a thread"  # a fork has one, whatever locks the others held
    # by its name in /proc: to ask a GPU's library would be to start it
    opened = (os.readlink(file) for file in Path("/proc/self/fd").iterdir() if file.is_symlink())
    return "opens a GPU" if any(file.startswith(GPUS) for file in opened) else ""


def flower() -> Callable[[], None]:
    """Flower's own command, imported."""
    [found] = importlib.metadata.entry_points(group="console_scripts", name=NAME)
    command: Callable[[], None] = found.load()
    importlib.import_module("flwr.clientapp")
    return command


def main(
    path: str, program: str, packages: str, parent: str, *, entry: Entry = flower, again_s: float = AGAIN_S
) -> None:
    """Serve at ``path`` as long as process ``parent`` is there; in each fork, be ``program``."""
    # not SIGTERM: a pilot's children are born with that blocked
    if not end_with_parent(signal.SIGKILL, int(parent)):
        return
    keep(again_s)
    listener = socket.socket(socket.AF_UNIX)
    try:
        Path(path).unlink(missing_ok=True)  # of one that was killed
        with address(path) as where:
            listener.bind(where)
    except OSError as error:
        say(f"there are none here: {path}: {error.strerror}")
        return
    listener.listen()
    try:
        fresh = Server(listener, packages.split(","), entry).serve()
    except Unfit as error:
        Path(path).unlink()  # so that no message says again that nobody is there
        say(f"{error}: from now on Flower's own command answers")
        return
    fresh.run(program)


def _pass_on(connection: socket.socket, pid: int) -> bool:
    """Send a fork the signals that its caller got; whether that one is gone."""
    try:
        numbers = connection.recv(64)
    except OSError:
        numbers = b""
    for number in numbers or [signal.SIGKILL]:
        os.kill(pid, number)
    return not numbers


if __name__ == "__main__":
    main(*sys.argv[1:])
