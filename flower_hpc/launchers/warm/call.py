"""A call of ``flwr-clientapp`` that was handed over, and the process that is to answer it."""

import os
import socket
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .ahead import Ahead

PATIENCE_S = 5.0
LARGEST = 1 << 26
"""Of a call: more than any system takes as arguments and environment."""


@dataclass
class Call:
    """A call that was handed over: its files, folder, arguments and environment."""

    files: list[int]
    folder: bytes
    arguments: list[str]
    environment: dict[bytes, bytes]

    @classmethod
    def read(cls, connection: socket.socket) -> "Call":
        """What the shim sends; OSError or ValueError where it does not."""
        connection.settimeout(PATIENCE_S)
        head, files, _, _ = socket.recv_fds(connection, 8, 3)
        try:
            if (size := int.from_bytes(head, "little")) > LARGEST:
                raise ValueError(f"it has {size} bytes")
            text = b""
            while len(text) < size:
                if not (more := connection.recv(size - len(text))):
                    raise OSError("the caller is gone")
                text += more
            connection.settimeout(None)
            folder, count, *words = text.split(b"\0")
            number = int(count)
            environment = dict(word.split(b"=", 1) for word in words[number:])
            return cls(files, folder, [os.fsdecode(word) for word in words[:number]], environment)
        except (OSError, ValueError):
            close(files)
            raise

    def become(self, program: str) -> None:
        """Make this process look as the caller's child would."""
        for number, file in enumerate(self.files):
            os.dup2(file, number)
            os.close(file)
        os.chdir(self.folder)
        os.environb.clear()
        os.environb.update(self.environment)
        sys.argv = [program, *self.arguments]


@dataclass(frozen=True)
class Fresh:
    """A process that is to answer a call: Flower's command, and the file for the names of what it imports."""

    call: Call
    command: Callable[[], None]
    names: int
    known: frozenset[str]
    """Modules that are there without any message."""

    def run(self, program: str) -> None:
        """Be Flower's command, to the end of the process."""
        self.call.become(program)
        _draw_anew()
        sys.meta_path.insert(0, Ahead(self.known))
        before = set(sys.modules)
        try:
            self.command()
        finally:
            with open(self.names, "w") as names:
                names.write(" ".join(name for name in list(sys.modules) if name not in before))


def _draw_anew() -> None:
    """Every fork starts with the server's generators: each must draw numbers of its own."""
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.seed()  # torch.seed() would ask for GPUs


def say(words: str) -> None:
    """A line for the node's log; logging is left alone, since forks would have it as it is here."""
    print(f"warm clients: {words}", file=sys.stderr, flush=True)


def close(files: Iterable[int]) -> None:
    for file in files:
        os.close(file)
