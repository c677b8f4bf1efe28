"""Runs a command in a network of its own, with forwards into it and out of it.

``python -m flower_hpc.network.enclosed [OPTIONS] -- COMMAND ARG...``

``--in ENDPOINT=127.0.0.1:PORT``
    What COMMAND listens on inside, at that port of its loopback, can be reached outside at ENDPOINT.
``--out 127.0.0.1:PORT=ENDPOINT``
    What COMMAND dials inside, at that port of its loopback, is dialled outside at ENDPOINT.
``--or-host``
    Where no private network can be had: on the host's network, with the same forwards.
``--host``
    On the host's network in any case: for the forwards alone.
``--cert FILE --key FILE --ca FILE --tls-name NAME``
    For ``tls:`` endpoints: what we show, whom we believe, the name the other side's certificate must bear.
``--max-connections N``
    Of each forward, at once. Default 512.

This process *becomes* COMMAND: signals, their mask, the process id, the process group and the exit code are
COMMAND's own. A child of it, the porter, does the forwarding, and ends when COMMAND does, whatever ended it.
There are two where forwards go in both directions: dialling is done in the network where the other side is.

Exit code 69, with one line, where no private network can be had; 2 for bad options; 127 or 126 where COMMAND
cannot be started.
"""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from ..errors import ConfigError
from ..parent import end_with_parent
from .endpoint import Endpoint, host_port, listen
from .forward import MAX_CONNECTIONS, Forward, Identity, serve
from .namespace import can_enclose, enclose, tried

__all__ = ["can_enclose", "main"]

UNAVAILABLE = 69
NOT_FOUND, NOT_EXECUTABLE = 127, 126
# the porter's sign that COMMAND is no more: one that no terminal and no scheduler sends
GONE = getattr(signal, "SIGRTMIN", signal.SIGHUP)
Pair = tuple[Endpoint, Endpoint]
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Become COMMAND; see the module's text."""
    try:
        options = _options(sys.argv[1:] if arguments is None else arguments)
        _run(options)
    except ConfigError as error:
        _exit(str(error), error.exit_code)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(prog="enclosed", allow_abbrev=False)
    parser.add_argument("--in", dest="inward", action="append", default=[], metavar="ENDPOINT=127.0.0.1:PORT")
    parser.add_argument(
        "--out", dest="outward", action="append", default=[], metavar="127.0.0.1:PORT=ENDPOINT"
    )
    parser.add_argument("--or-host", action="store_true")
    parser.add_argument("--host", action="store_true")
    for name in ("--cert", "--key", "--ca"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--tls-name", default="")
    parser.add_argument("--max-connections", type=int, default=MAX_CONNECTIONS)
    parser.add_argument("command", nargs="+", metavar="-- COMMAND")
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace) -> NoReturn:
    identity = _identity(options)

    def forwards(pairs: Sequence[Pair]) -> list[Forward]:
        return [Forward(listen(at), at, to, identity, options.max_connections) for at, to in pairs]

    inward = [_pair(text, *text.rpartition("=")[::2])[::-1] for text in options.inward]
    outward = [_pair(text, *text.partition("=")[::-2]) for text in options.outward]
    reason = "" if options.host else tried()
    if reason and not options.or_host:
        _exit(reason, UNAVAILABLE)
    if reason is not None:
        doors = forwards([*inward, *outward])
    else:
        ours, theirs = socket.socketpair()
        if outward:  # dials outside, so it is made outside; takes the listeners that will be made inside
            _start_porter(lambda: _received(theirs, outward, identity, options.max_connections))
        doors = forwards(inward)  # a socket belongs to the network in which it was made
        enclose()
        windows = forwards(outward)
        if windows:
            socket.send_fds(ours, [b"."], [each.listener.fileno() for each in windows])
        for each in (ours, theirs, *(window.listener for window in windows)):
            each.close()
    if doors:
        _start_porter(lambda: doors)
    _become(options.command)


def _received(
    channel: socket.socket,
    pairs: Sequence[Pair],
    identity: Identity | None,
    max_connections: int,
) -> list[Forward]:
    _, files, _, _ = socket.recv_fds(channel, 1, len(pairs))
    if not files:
        os._exit(0)  # there will be no COMMAND
    listeners = [socket.socket(fileno=file) for file in files]
    return [
        Forward(listener, at, to, identity, max_connections)
        for listener, (at, to) in zip(listeners, pairs, strict=True)
    ]


def _start_porter(take: Callable[[], list[Forward]]) -> None:
    parent = os.getpid()
    if os.fork() != 0:
        return
    code = 1
    try:
        # signals to the process group are COMMAND's: while it winds up, it needs its forwards
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals() - {GONE})
        # armed after the mask, before the look at the parent: it may have ended meanwhile
        signal.signal(GONE, lambda *_: os._exit(0))
        if end_with_parent(GONE, parent):
            _redirect(0, 1)  # who reads COMMAND's output waits for its end, not for ours
            os.chdir("/")
            asyncio.run(_carry(take(), parent))
        code = 0
    except Exception as error:
        print(f"enclosed: the porter ended: {error}", file=sys.stderr)
    finally:
        os._exit(code)


async def _carry(forwards: list[Forward], parent: int) -> None:
    gone = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(GONE, gone.set)
    serving = asyncio.create_task(serve(forwards, gone))
    if sys.platform != "linux":
        while os.getppid() == parent:
            await asyncio.sleep(0.5)
        gone.set()
    await gone.wait() if os.getppid() == parent else gone.set()
    _redirect(2)
    await serving


def _become(command: list[str]) -> NoReturn:
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # Python ignores them, and COMMAND would inherit that
    try:
        os.execvp(command[0], command)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        _exit(f"{command[0]}: {error.strerror or error}", NOT_FOUND if missing else NOT_EXECUTABLE)


def _identity(options: argparse.Namespace) -> Identity | None:
    files = (options.cert, options.key, options.ca)
    if not any(files):
        return None
    if not all(files):
        raise ConfigError("--cert, --key and --ca must be given together")
    cert, key, ca = (file.absolute() for file in files)
    return Identity(cert, key, ca, options.tls_name)


def _pair(text: str, far: str, near: str) -> Pair:
    """The end inside and the end outside."""
    wrong = f"{text!r}: must be an endpoint and 127.0.0.1:PORT, with = between"
    host, port = host_port(near, wrong)
    if host not in LOOPBACK:
        raise ConfigError(wrong)
    return Endpoint("tcp", host=host, port=port), Endpoint.parse(far)


def _redirect(*files: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for file in files:
        os.dup2(null, file)
    os.close(null)


def _exit(words: str, code: int) -> NoReturn:
    print(f"enclosed: {' '.join(words.split())}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback for a Ctrl-C that comes early
    logging.basicConfig(format="enclosed: %(message)s", level=logging.WARNING)
    main()
