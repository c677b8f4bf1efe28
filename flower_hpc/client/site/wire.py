"""Between a message's process and rank 0 of the site: one value there, one back, over a UNIX socket.

Arrays travel as the bytes that they are, beside a small pickle. The socket lies in a folder that only its
owner can enter, and each end asks the kernel who the other one is before it reads a word: whose pickles are
read can do all that their reader can.
"""

import os
import pickle
import socket
from typing import Any

from ...errors import JobFailed
from ...local_socket import is_ours
from ...transport.mpi.parcel import pack, unpack

HEAD = 8


def check_peer(connection: socket.socket) -> None:
    """Refuse an end that is another user's, by JobFailed; Linux only."""
    if not is_ours(connection):
        raise JobFailed(f"the other end of the site's socket must belong to user {os.geteuid()}")


def send(to: socket.socket, value: Any) -> None:
    """Send a value; OSError where the other end is gone."""
    text, data = pack(value)
    head = pickle.dumps((text, [len(one) for one in data]))
    to.sendall(len(head).to_bytes(HEAD, "little") + head)
    for one in data:
        to.sendall(one)


def receive(source: socket.socket) -> Any:
    """What :func:`send` sends; EOFError where the other end is gone before it is all there."""
    size = int.from_bytes(_read(source, HEAD), "little")
    text, sizes = pickle.loads(_read(source, size))
    return unpack(text, [_read(source, each) for each in sizes])


def _read(source: socket.socket, size: int) -> bytes:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = source.recv_into(view)
        if not count:
            raise EOFError("the other end is gone")
        view = view[count:]
    return bytes(data)
