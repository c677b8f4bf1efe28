"""Programs that a case starts: run to their end or ended, and the memory that they took."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

BIN = Path(sys.executable).parent
BENCHMARKS = Path(__file__).parents[1]
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "RAY_USAGE_STATS_ENABLED": "0"}
DIRECT = {"NO_PROXY": "127.0.0.1,::1,localhost", "no_proxy": "127.0.0.1,::1,localhost"}


class Failed(Exception):
    """A program ended as it should not, or not at all."""


def environment(**more: str) -> dict[str, str]:
    """Ours, with the programs of this interpreter first."""
    path = f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return os.environ | QUIET | DIRECT | {"PATH": path} | more


@contextmanager
def started(
    command: Sequence[object], log: Path, env: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A program in a session of its own, all of which ends here."""
    # a file, not a pipe, which daemons of the program would hold open
    with log.open("ab") as out:
        words = [str(word) for word in command]
        process = subprocess.Popen(
            words, stdout=out, stderr=subprocess.STDOUT, env=dict(env), start_new_session=True
        )
    try:
        yield process
    finally:
        _end(process.pid)
        process.wait()


@contextmanager
def all_started(
    commands: Mapping[str, Sequence[object]], folder: Path, env: Mapping[str, str]
) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Several, by name."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(started(words, folder / f"{name}.log", env))
            for name, words in commands.items()
        }


def run(command: Sequence[object], log: Path, env: Mapping[str, str], timeout_s: float = 600) -> float:
    """Run a program to its end; the seconds it took."""
    began = time.perf_counter()
    with started(command, log, env) as process:
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{command[0]} did not end within {timeout_s:g} s: {tail(log)}") from error
    if code:
        raise Failed(f"{command[0]} ended with {code}: {tail(log)}")
    return time.perf_counter() - began


def tail(log: Path) -> str:
    """The last words of a log."""
    return log.read_text(errors="replace").strip()[-1500:]


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody has now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def wait_for_port(port: int, timeout_s: float = 60) -> None:
    """Until somebody listens."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise Failed(f"nobody listens at port {port} after {timeout_s:g} s")


class Peak:
    """The most memory that a process and those it started have from now on, each counted by the kernel."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        for one in self._tree():
            with suppress(OSError):  # of a process in another user namespace: then since its start
                Path(f"/proc/{one}/clear_refs").write_text("5")

    def mb(self, *, but: int) -> float:
        """The sum of their peaks, without that of one process."""
        return sum(_peak_mb(one) for one in self._tree() if one != but)

    def _tree(self) -> list[int]:
        try:
            process = psutil.Process(self._pid)
            return [self._pid, *(child.pid for child in process.children(recursive=True))]
        except psutil.NoSuchProcess:
            return []


def _peak_mb(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6 if "VmHWM:" in status else 0.0


def _end(session: int) -> None:
    """Ask all of a session to end, and kill what has not after a while."""
    members = [process for process in psutil.process_iter() if _session(process.pid) == session]
    for process in members:
        with suppress(psutil.Error):
            process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(members, timeout=5)
    for process in alive:
        with suppress(psutil.Error):
            process.kill()


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return -1
