"""A network of our own: Linux's user and network namespaces, entered without privileges.

See https://man7.org/linux/man-pages/man7/user_namespaces.7.html
"""

import ctypes
import fcntl
import functools
import os
import socket
import struct
import subprocess
import sys

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1


@functools.cache
def can_enclose() -> str | None:
    """None where :func:`enclose` works here, else the reason in words; tried in another process, once."""
    command = [sys.executable, "-m", f"{__package__}.namespace"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"it could not be tried: {error}"
    if done.returncode == 0:
        return None
    return " ".join(done.stdout.split()) or f"the trial ended with exit code {done.returncode}"


def tried() -> str | None:
    """As :func:`can_enclose`, by a fork: only for a process that has no threads."""
    end, other = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.write(other, (_attempt() or "").encode())
            code = 0
        finally:
            os._exit(code)
    os.close(other)
    with os.fdopen(end, "rb") as file:
        words = file.read().decode()
    _, status = os.waitpid(child, 0)
    return words or (None if status == 0 else "the trial died")


def enclose() -> None:
    """Put this process, which must have no threads, into a network of its own, whose loopback is up.

    User and group ids stay what they are. Who is not root holds no capability after the next ``exec``.

    Raises
    ------
    OSError
        It cannot be had here; the process may be half in it then: try with :func:`can_enclose` before.
    """
    uid, gid = os.geteuid(), os.getegid()
    if uid != 0 or not _unshare(CLONE_NEWNET):
        if not _unshare(CLONE_NEWUSER | CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        _write("setgroups", "deny")  # else an unprivileged gid_map is refused
        _write("uid_map", f"{uid} {uid} 1")
        _write("gid_map", f"{gid} {gid} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        asked = fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("16sH14x", b"lo", 0))
        (flags,) = struct.unpack_from("H", asked, 16)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))


def _attempt() -> str | None:
    if sys.platform != "linux":
        return "only Linux has network namespaces"
    try:
        enclose()
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
            return None
    except OSError as error:
        return f"no network namespace can be had: {error.strerror or error}"


def _unshare(flags: int) -> bool:
    return bool(_libc().unshare(flags) == 0)


def _write(name: str, words: str) -> None:
    with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
        file.write(words)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


if __name__ == "__main__":
    reason = _attempt()
    print(reason or "")
    sys.exit(reason is not None)
