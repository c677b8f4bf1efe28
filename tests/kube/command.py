"""The command line of `kube.cluster`, for developers and for tests with processes of their own."""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kube.cluster import KubernetesCluster, KubernetesError

READY_S = 60


def main() -> None:
    """Bring a cluster up or down."""
    asked = parser().parse_args()
    folder: Path = asked.dir.absolute()
    try:
        {"up": up, "down": down, "serve": serve}[asked.command](folder)
    except KubernetesError as error:
        raise SystemExit(str(error)) from None


def parser() -> argparse.ArgumentParser:
    """Three words; ``serve`` is what ``up`` leaves behind."""
    top = argparse.ArgumentParser(prog="cluster.py", description=main.__doc__)
    where = argparse.ArgumentParser(add_help=False)
    default = Path(tempfile.gettempdir()) / f"kube-of-{os.getuid()}"
    where.add_argument("--dir", type=Path, default=default, help="where it lives (default: %(default)s)")
    commands = top.add_subparsers(dest="command", required=True)
    commands.add_parser("up", parents=[where], help="start one, print the path of its kubeconfig")
    commands.add_parser("down", parents=[where], help="end its processes, remove its folder")
    commands.add_parser("serve", parents=[where], help="stay in the foreground")
    return top


def up(folder: Path) -> None:
    """Start a process that serves, and wait until it does."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "kube.log", "a") as log:
        program = str(Path(__file__).with_name("cluster.py"))
        process = subprocess.Popen(
            [sys.executable, program, "serve", "--dir", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    end = time.monotonic() + READY_S
    while not (folder / "kube.pid").exists():
        if process.poll() is not None or time.monotonic() > end:
            raise KubernetesError((folder / "kube.log").read_text()[-2000:])
        time.sleep(0.05)
    print(folder / "kube" / "kubeconfig")


def serve(folder: Path) -> None:
    """Serve until SIGTERM."""
    folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with KubernetesCluster(folder):
        (folder / "kube.pid").write_text(str(os.getpid()))
        try:
            signal.pause()
        finally:
            (folder / "kube.pid").unlink(missing_ok=True)


def down(folder: Path) -> None:
    """End it."""
    try:
        pid = int((folder / "kube.pid").read_text())
    except FileNotFoundError:
        raise KubernetesError(f"no cluster at {folder}") from None
    words = Path(f"/proc/{pid}/cmdline")
    if words.exists() and str(folder).encode() in words.read_bytes():
        os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + 30
        while words.exists() and words.read_bytes() and time.monotonic() < end:
            time.sleep(0.05)
    (folder / "kube.pid").unlink(missing_ok=True)
    (folder / "kube.log").unlink(missing_ok=True)
