"""One run of a container: a process in its sandbox, or nothing at all for the image that only pretends."""

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path

STARTED_S = 10


class Process:
    """A process whose parent, bwrap, dies with the thread that called this."""

    def __init__(self, build, words: list[str], env: dict[str, str], log: Path):
        self.log, self.started = log, time.time()
        reader, writer = os.pipe()
        try:
            with open(log, "ab") as out:
                self._bwrap = subprocess.Popen(
                    [*build(writer)[:-1], *_set(env), "--", *words],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    pass_fds=[writer],
                    start_new_session=True,
                )
            os.close(writer)
            writer = -1
            self.pid = self._read_pid(reader)
        finally:
            os.close(reader)
            if writer >= 0:
                os.close(writer)

    def _read_pid(self, reader: int) -> int:
        data, end = b"", time.monotonic() + STARTED_S
        while time.monotonic() < end and select.select([reader], [], [], 0.5)[0] is not None:
            piece = os.read(reader, 1000) if select.select([reader], [], [], 0)[0] else b""
            data += piece
            with contextlib.suppress(ValueError):
                return json.loads(data)["child-pid"]
            if not piece and self._bwrap.poll() is not None:
                break
        return 0

    def exit_code(self) -> int | None:
        """None while it runs."""
        code = self._bwrap.poll()
        return code if code is None or code >= 0 else 128 - code

    def setup_error(self) -> str:
        """Why the sandbox or the program could not be started; empty if it was."""
        if self.exit_code() != 1:
            return ""
        last = self.log.read_bytes()[-2000:].decode(errors="replace").strip().splitlines()[-1:]
        return last[0].removeprefix("bwrap: ") if last and last[0].startswith("bwrap: ") else ""

    def signal(self, number: int) -> None:
        """To the first process of the container, which as such ignores what it does not handle."""
        if self._bwrap.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid or self._bwrap.pid, number)

    def kill(self) -> None:
        """SIGKILL, to all of its processes."""
        self.signal(signal.SIGKILL)

    def reap(self) -> None:
        """Kill, and wait for the end."""
        self.kill()
        try:
            self._bwrap.wait(5)
        except subprocess.TimeoutExpired:
            self._bwrap.kill()
            self._bwrap.wait(5)

    def execute(self, words: list[str], env: dict[str, str], timeout_s: float) -> tuple[int, str]:
        """Run a command inside, as probes and hooks do: exit code and output."""
        enter = ["nsenter", "-t", str(self.pid), "-U", "--preserve-credentials", "-m", "-p", "-i", "-u"]
        try:
            done = subprocess.run(
                [*enter, *words],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return 124, f"command timed out after {timeout_s}s"
        except OSError as error:
            return 126, str(error)
        return done.returncode, done.stdout.decode(errors="replace")


class Pretended:
    """Runs nothing, and ends at once when it is told to."""

    pid = 0

    def __init__(self) -> None:
        self.started, self._code = time.time(), None

    def exit_code(self) -> int | None:
        """None until a signal comes."""
        return self._code

    def setup_error(self) -> str:
        """There is none."""
        return ""

    def signal(self, number: int) -> None:
        """Ends it."""
        self._code = 0 if number == signal.SIGTERM else 128 + number

    def kill(self) -> None:
        """Ends it."""
        self._code = 137

    reap = kill

    def execute(self, words: list[str], env: dict[str, str], timeout_s: float) -> tuple[int, str]:
        """Succeeds."""
        return 0, ""


def _set(env: dict[str, str]) -> list[str]:
    return [word for name, value in env.items() for word in ("--setenv", name, value)]
