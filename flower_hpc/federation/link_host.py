"""On a cluster's node: a SuperLink in a network of its own, and beside it the doors that lead there.

``python -m flower_hpc.federation.link_host FOLDER [--or-host] -- flower-superlink ARG...``

``{database}`` and ``{port}`` in the arguments are filled in here. Two doors stand on the host's network: the
gateway, for nodes, and one that asks for the federation's own certificate, for its commands. ``link.json`` in
FOLDER says where they are while they are there.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FrameType

from ..clock import WALL
from ..launchers.pilot import end
from ..launchers.ports import free_port, join
from ..protocol import BELL, STATE_ENV
from .state import write_json

LINK = "link.json"
LOOK_S, ANSWER_S = 0.25, 60.0


def main() -> int:
    """Run until one of the two ends, or a signal comes; exit code 1 where one ended by itself."""
    folder, *rest = sys.argv[1:]
    return Host(Path(folder), rest[rest.index("--") + 1 :], or_host="--or-host" in rest).run()


class Host:
    """The SuperLink, its gateway, and the note of where they are."""

    def __init__(self, folder: Path, command: list[str], *, or_host: bool) -> None:
        self.folder, self.or_host = folder, or_host
        scratch = Path(tempfile.gettempdir())
        self.socket = scratch / "link.sock"
        taken: set[int] = set()
        for name in ("port", "control", "gateway"):
            setattr(self, name, free_port("0.0.0.0", taken))
            taken.add(getattr(self, name))
        fill = {"{port}": str(self.port), "{database}": str(scratch / "superlink.db")}
        self.command = [fill.get(word, word) for word in command]
        self.asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    port: int
    control: int
    gateway: int

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def run(self) -> int:
        processes = [self._start(self._link()), self._start(self._gateway())]
        try:
            deadline = WALL.now() + ANSWER_S
            while not self.asked and all(process.poll() is None for process in processes):
                if deadline and _answers(self.control) and _answers(self.gateway):
                    self._tell()
                    deadline = 0.0
                if deadline and WALL.now() > deadline:
                    print(f"ERROR: the SuperLink does not answer after {ANSWER_S:g} s", flush=True)
                    break
                WALL.sleep(LOOK_S)
        finally:
            (self.folder / LINK).unlink(missing_ok=True)
            for process in processes:
                end(process)
        return 0 if self.asked else 1

    def _start(self, command: list[str]) -> "subprocess.Popen[bytes]":
        # blocked for what the batch system signals with it: they end by one SIGINT of ours
        old = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGUSR2))
        try:
            return subprocess.Popen(command, start_new_session=True)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, old)

    def _proof(self) -> dict[str, Path]:
        return {name: self.folder / file for name, file in FILES.items()}

    def _link(self) -> list[str]:
        inside, proof = f"127.0.0.1:{self.port}", self._proof()
        words = [
            sys.executable,
            "-m",
            "flower_hpc.network.enclosed",
            *(["--or-host"] if self.or_host else []),
        ]
        words += ["--in", f"unix:{self.socket}={inside}", "--in", f"tls:0.0.0.0:{self.control}={inside}"]
        words += [word for name in FILES for word in (f"--{name}", str(proof[name]))]
        return [*words, "--", *self.command]

    def _gateway(self) -> list[str]:
        proof = self._proof()
        words = [
            str(Path(sys.executable).with_name("flower-hpc")),
            "gateway",
            "--superlink",
            f"unix:{self.socket}",
        ]
        words += ["--listen", join("0.0.0.0", self.gateway), "--ca", str(proof["ca"])]
        # the federation's folder, if this host sees it: there the ServerApps, which run here, ring
        state = os.environ.get(STATE_ENV)
        if state and os.access(state, os.W_OK):
            words += ["--bell", str(Path(state) / BELL)]
        return [*words, "--certificate", str(proof["cert"]), "--key", str(proof["key"])]

    def _tell(self) -> None:
        where = {"host": socket.gethostname(), "pid": os.getpid()}
        ports = {"port": self.port, "control": self.control, "gateway": self.gateway}
        write_json(self.folder / LINK, where | ports)


FILES = {"ca": "ca.pem", "cert": "superlink.pem", "key": "superlink.key"}


def _answers(port: int) -> bool:
    with socket.socket() as raw:
        raw.settimeout(1)
        return raw.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    sys.exit(main())
