"""What an address is (``unix:/path``, ``tcp:HOST:PORT``, ``tls:HOST:PORT``), and how it is listened on."""

import contextlib
import errno
import fcntl
import os
import re
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from ..errors import ConfigError
from ..local_socket import address

GRAMMAR = "must be unix:/path, tcp:HOST:PORT or tls:HOST:PORT (IPv6 in brackets)"
BACKLOG = 256
HOST_PORT = re.compile(r"(?:\[([0-9A-Fa-f]*:[0-9A-Fa-f:.]+(?:%\w+)?)\]|([A-Za-z0-9_.-]+)):([0-9]{1,5})")


@dataclass(frozen=True)
class Endpoint:
    """One end of a forward; make it with :meth:`parse`.

    Parameters
    ----------
    kind : {"unix", "tcp", "tls"}
        ``tls`` is mutual: both sides show a certificate.
    path : str
        Of a UNIX socket, absolute.
    host, port : str, int
        Of the others; IPv6 without brackets.
    """

    kind: Literal["unix", "tcp", "tls"]
    path: str = ""
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an endpoint; ConfigError in one line where it is none."""
        kind, _, rest = text.partition(":")
        if kind == "unix":
            if not rest.startswith("/") or "\0" in rest or rest.endswith("/"):
                raise ConfigError(f"endpoint {text!r}: a UNIX socket needs an absolute path")
            return cls("unix", path=rest)
        if kind not in ("tcp", "tls"):
            raise ConfigError(f"endpoint {text!r}: {GRAMMAR}")
        host, port = host_port(rest, f"endpoint {text!r}: {GRAMMAR}")
        return cls("tcp" if kind == "tcp" else "tls", host=host, port=port)

    def __str__(self) -> str:
        """Print what :meth:`parse` reads."""
        if self.kind == "unix":
            return f"unix:{self.path}"
        return (
            f"{self.kind}:[{self.host}]:{self.port}"
            if ":" in self.host
            else f"{self.kind}:{self.host}:{self.port}"
        )


def host_port(text: str, wrong: str) -> tuple[str, int]:
    """``HOST:PORT`` taken apart; ConfigError with the words ``wrong`` where it is not that."""
    found = HOST_PORT.fullmatch(text)
    if not found or not 0 < int(found[3]) < 65536:
        raise ConfigError(wrong)
    return found[1] or found[2], int(found[3])


def listen(endpoint: Endpoint) -> socket.socket:
    """A listening socket; of a TLS endpoint the bare one.

    A UNIX socket is made with mode 0600, in a folder that must be ours and that nobody else can write to. One
    that a dead process left is replaced.

    Raises
    ------
    ConfigError
        It is in use, or cannot be made; one line.
    """
    try:
        return _listen_unix(Path(endpoint.path)) if endpoint.kind == "unix" else _listen_tcp(endpoint)
    except OSError as error:
        words = (
            "is in use"
            if error.errno == errno.EADDRINUSE
            else f"cannot be listened on: {error.strerror or error}"
        )
        raise ConfigError(f"{endpoint} {words}") from error


def _listen_tcp(endpoint: Endpoint) -> socket.socket:
    family, kind, proto, _, place = socket.getaddrinfo(
        endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, proto)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _listen_unix(path: Path) -> socket.socket:
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        found = os.fstat(folder)
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise ConfigError(f"unix:{path}: its folder must be yours, and writable by you alone")
        with contextlib.suppress(OSError):  # some file systems have no locks
            fcntl.flock(folder, fcntl.LOCK_EX)  # two that start at once must not replace each other's socket
        _remove_stale(path)
        return _bind_unix(path)
    finally:
        os.close(folder)


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"unix:{path} is there already, and is no socket")
    with socket.socket(socket.AF_UNIX) as probe, address(path) as name:
        probe.settimeout(1)
        try:
            probe.connect(name)
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError:  # a full backlog, say: somebody is there
            pass
    raise ConfigError(f"unix:{path} is in use")


def _bind_unix(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        with address(path) as name:
            listener.bind(name)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener
