"""The message's side: find the site's job, or start it; hand the message over; wait."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import psutil

from ...clock import Clock
from ...errors import ConfigError, JobFailed
from ...local_socket import address
from ...process import identity
from ...protocol import SUPERNODE_ENV
from .call import Call, Said
from .options import SiteOptions
from .wire import check_peer, receive, send

PLACE, SOCKET, LOG_FILE = "site", "socket", "site.log"
START_S, END_S, LOOK_S = 300.0, 5.0, 0.05
LINES, LONGEST = 5, 600
HEADING = "=== the site's job"


def ask(options: SiteOptions, folder: Path, call: Call, clock: Clock) -> Said:
    """Have the site's job answer; it is started where there is none.

    Raises
    ------
    ConfigError
        The job's program is not there.
    JobFailed
        The job cannot be started, or ended, or has no reply.
    """
    while True:
        with _connected(options, folder, clock) as connection:
            try:
                send(connection, call)
                said: Said = receive(connection)
            except (OSError, EOFError):
                _ended(folder, clock)
        if said.error:
            raise JobFailed(said.error)
        if not said.other:
            return said


def _connected(options: SiteOptions, folder: Path, clock: Clock) -> socket.socket:
    if (found := _connect(folder)) is not None:
        return found
    job = _start(options, folder)
    until = clock.now() + START_S
    while (found := _connect(folder)) is None:
        if job.poll() is not None:
            raise JobFailed(f"the site's MPI job did not start: {_reason(folder)}")
        if clock.now() > until:
            job.send_signal(signal.SIGTERM)
            raise JobFailed(f"the site's MPI job did not start within {START_S:g} s: {_reason(folder)}")
        clock.sleep(LOOK_S)
    return found


def _connect(folder: Path) -> socket.socket | None:
    path = folder / PLACE / SOCKET
    if not path.parent.exists():
        return None
    found = socket.socket(socket.AF_UNIX)
    try:
        with address(path) as where:
            found.connect(where)
        check_peer(found)
    except OSError:
        found.close()
        return None
    except JobFailed:
        found.close()
        raise
    return found


def _start(options: SiteOptions, folder: Path) -> "subprocess.Popen[bytes]":
    place = folder / PLACE
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    place.chmod(0o700)
    module = f"{__package__}.job"
    words = [str(place), str(options.nodes), str(int(options.together)), owner()]
    command = [*options.command(), sys.executable, "-P", "-m", module, *words]
    with (folder / LOG_FILE).open("ab") as log:
        log.write(f"{HEADING}: {time.strftime('%Y-%m-%d %H:%M:%S')}: {' '.join(command)}\n".encode())
        log.flush()
        try:
            job = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder)
        except OSError as error:
            raise ConfigError(f"the site's MPI job cannot be started: {error}") from error
    # it outlives this message; where this process lives longer still, somebody must ask how it ended
    threading.Thread(target=job.wait, daemon=True).start()
    return job


def owner() -> str:
    """Whose end is the job's: pid and creation time of the SuperNode, else of this process."""
    if known := os.environ.get(SUPERNODE_ENV):
        return known
    own = psutil.Process()
    for process in own.parents():
        with suppress(psutil.Error):
            if any("flower-supernode" in word for word in process.cmdline()[:2]):
                own = process
    return identity(own.pid)


def _ended(folder: Path, clock: Clock) -> NoReturn:
    # who tells how a rank died, and who ends the others, are two processes
    until = clock.now() + END_S
    while (not (told := _told(folder)) or _listens(folder)) and clock.now() < until:
        clock.sleep(LOOK_S)
    raise JobFailed(f"the site's MPI job ended while it worked: {told or _reason(folder)}")


def _listens(folder: Path) -> bool:
    """Whether the job, which is coming to its end, still takes calls: the next message should not be one."""
    if (found := _connect(folder)) is None:
        return False
    found.close()
    return True


def _told(folder: Path) -> str:
    said = [line.removeprefix("error: ") for line in _log(folder) if line.startswith("error: ")]
    return said[0][:LONGEST] if said else ""


def _reason(folder: Path) -> str:
    lines = [line for line in _log(folder) if line.strip()][-LINES:]
    where = f"(log: {folder / LOG_FILE})"
    return f"{_told(folder) or ' | '.join(lines)[-LONGEST:] or 'it said nothing'} {where}"


def _log(folder: Path) -> list[str]:
    """What the latest job wrote."""
    try:
        text = (folder / LOG_FILE).read_text(errors="replace")
    except OSError:
        return []
    return text.rpartition(HEADING)[2].splitlines()[1:]
