"""UNIX sockets: an address of any length, and whose the other end is."""

import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST = 100  # sun_path holds 108 bytes on Linux, 104 elsewhere
CREDENTIALS = struct.Struct("3i")  # pid, uid and gid, see unix(7)


@contextmanager
def address(path: str | os.PathLike[str]) -> Iterator[str]:
    """A name of the socket ``path`` that fits into a socket address, however long the path is."""
    name = os.fspath(path)
    if len(os.fsencode(name)) <= LONGEST or not os.path.isdir("/proc/self/fd"):
        yield name
        return
    folder = os.open(os.path.dirname(name), os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(name)}"
    finally:
        os.close(folder)


def is_ours(connection: socket.socket) -> bool:
    """Whether the process at the other end is of our user; of a connected client: the one that listens.

    Elsewhere than on Linux it is not asked: the socket's folder keeps others out.
    """
    if sys.platform != "linux":
        return True
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    _, uid, _ = CREDENTIALS.unpack(found)
    return bool(uid == os.geteuid())
