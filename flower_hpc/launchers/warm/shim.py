"""Stands for ``flwr-clientapp``: has the node's warm server fork, and ends as the fork does.

``shim.py SOCKET REAL ARGUMENT...``; a bare script, as every import here is paid for with every message. What
it does not know, and what no fork has taken, it leaves to REAL, Flower's own command.
"""

import os
import signal
import socket
import sys
from contextlib import suppress

WITH_VALUE = {"--runtime-api-address", "--token", "--token-file", "--root-certificates", "--parent-pid"}
ALONE = {"--insecure"}
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)


def main() -> None:
    """Hand the call over, and wait for its end."""
    path, real, *arguments = sys.argv[1:]
    if is_known(arguments):
        # a signal waits until it is clear whose it is: a fork's, or Flower's own command's
        before = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
        parent, group = os.getppid(), os.getpgrp()
        # one to the whole group reaches the fork by itself, and must not come twice; not by a session of our
        # own, from which there is no way back
        if group != os.getpid():
            os.setpgid(0, 0)
        if (call := hand_over(path, arguments)) is not None:
            sys.exit(wait(call, before))
        come_back(parent, group)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    os.execv(real, [real, *arguments])


def is_known(arguments: list[str]) -> bool:
    """Whether these are options that mean the same to a fork."""
    words = iter(arguments)
    for word in words:
        if word in WITH_VALUE:
            if next(words, None) is None:
                return False
        elif word not in ALONE:
            return False
    return True


def hand_over(path: str, arguments: list[str]) -> socket.socket | None:
    """The connection, once a fork has the call; None where there is none, and will be none."""
    call = socket.socket(socket.AF_UNIX)
    why = "the server did not take this message"
    try:
        environment = [key + b"=" + value for key, value in os.environb.items()]
        words = [os.getcwdb(), str(len(arguments)).encode(), *map(os.fsencode, arguments), *environment]
        text = b"\0".join(words)
        connect(call, path)
        socket.send_fds(call, [len(text).to_bytes(8, "little")], [0, 1, 2])
        call.sendall(text)
        if call.recv(1) == b"+":
            return call
    except FileNotFoundError:
        why = ""  # no server yet, or one that has said why it ended
    except ConnectionRefusedError:
        why = "the server is gone"
    except PermissionError as error:
        why = str(error)
    except OSError:
        pass
    call.close()
    if why:
        print(f"warm clients: {why}: Flower's own command answers", file=sys.stderr, flush=True)
    return None


def connect(call: socket.socket, path: str) -> None:
    """Connect to a server of our own user; what :mod:`flower_hpc.local_socket` has, without its imports."""
    place = os.open(os.path.dirname(path), os.O_RDONLY)
    call.connect(f"/proc/self/fd/{place}/{os.path.basename(path)}")
    os.close(place)
    credentials = call.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)  # pid, uid, gid
    if int.from_bytes(credentials[4:8], sys.byteorder) != os.geteuid():
        raise PermissionError("the server is another user's")


def come_back(parent: int, group: int) -> None:
    """Be in the caller's group again, whose end is to be that of Flower's own command; end if it is over."""
    if os.getppid() != parent:
        sys.exit(1)
    with suppress(OSError):  # there is none any longer, or it is our own
        os.setpgid(0, group)


def wait(call: socket.socket, mask: set[int | signal.Signals]) -> int:
    """The fork's exit code; what signals come here, and have come, go to it."""
    for number in PASSED_ON:
        signal.signal(number, lambda number, _: pass_on(call, number))
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    said = call.recv(64)
    # without an answer the server is gone; the fork goes on by itself
    return int(said) if said.isdigit() else 1


def pass_on(call: socket.socket, number: int) -> None:
    """Have the server send the fork a signal."""
    with suppress(OSError):  # it has just ended
        call.sendall(bytes([number]))


if __name__ == "__main__":
    main()
