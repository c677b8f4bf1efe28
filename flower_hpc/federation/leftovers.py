"""Processes of a federation that nobody watches any more: found by a mark that they inherit, and ended."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path

import psutil

from .state import OWNER_ENV, StateDir

SIGN_OFF_S, END_S = 5.0, 3.0
POLL_S = 0.1


def find(state: StateDir) -> dict[int, str]:
    """Pid and command line of every process of this user that carries the federation's mark."""
    found = _by_environment(state) if Path("/proc/self/environ").exists() else _by_command(state)
    return {pid: words for pid, words in found.items() if pid != os.getpid()}


def end(state: StateDir, sign_off_s: float = SIGN_OFF_S, spare: Collection[int] = ()) -> int:
    """End them all: SuperNodes are asked first, then the SuperLink, then what is left is killed.

    Parameters
    ----------
    state : StateDir
        Whose processes.
    sign_off_s : float
        Seconds that SuperNodes get to sign off; default 5.
    spare : collection of int
        Processes that stay, with what they started; default none.

    Returns
    -------
    int
        How many processes there were.
    """
    found = _but(find(state), spare)
    if not found:
        return 0
    nodes = {pid for pid, words in found.items() if "flower-supernode" in words}
    links = {pid for pid, words in found.items() if "flower-superlink" in words}
    _signal(nodes, signal.SIGINT)
    _wait(state, sign_off_s, nodes, spare)
    _signal(links, signal.SIGTERM)
    _wait(state, END_S, None, spare)
    while left := _but(
        find(state), spare
    ):  # again and again: what is being killed may just have started something
        _signal(set(left), signal.SIGKILL)
        time.sleep(POLL_S)
    return len(found)


def _but(found: dict[int, str], spare: Collection[int]) -> dict[int, str]:
    stay = set(spare)
    for pid in spare:
        with contextlib.suppress(psutil.NoSuchProcess):
            stay |= {child.pid for child in psutil.Process(pid).children(recursive=True)}
    return {pid: words for pid, words in found.items() if pid not in stay}


def _wait(state: StateDir, seconds: float, pids: set[int] | None, spare: Collection[int]) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        left = _but(find(state), spare)
        if not (left if pids is None else pids & set(left)):
            return
        time.sleep(POLL_S)


def _signal(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue  # it was quicker


def _by_environment(state: StateDir) -> dict[int, str]:
    mark = f"{OWNER_ENV}={state.path}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # zombies have an empty environment
            if entry.stat().st_uid == os.getuid() and mark in (entry / "environ").read_bytes().split(b"\0"):
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found[int(entry.name)] = words
        except OSError:
            continue  # it ended while we looked, or is not ours to read
    return found


def _by_command(state: StateDir) -> dict[int, str]:
    # macOS: other processes' environments cannot be relied on; Flower's command lines name our files
    listed = subprocess.run(
        ["ps", "-ww", "-U", str(os.getuid()), "-o", "pid=,command="],
        capture_output=True,
        text=True,
        check=True,
    )
    found = {}
    for line in listed.stdout.splitlines():
        pid, _, words = line.strip().partition(" ")
        if str(state.path) in words and any(
            name in words for name in ("flower-super", "flwr-", "registration")
        ):
            found[int(pid)] = words
    return found


def shared_host() -> bool:
    """Whether other people use this machine: their processes run on it, or it submits to Slurm."""
    first = 500 if sys.platform == "darwin" else 1000
    uids = _uids()
    people = {uid for uid in uids if first <= uid < 60000 and uid != os.getuid()}
    slurm = any((Path(folder) / "sbatch").exists() for folder in os.get_exec_path())
    return bool(people) or slurm


def _uids() -> set[int]:
    if Path("/proc/self/status").exists():  # no `ps` in a small image
        found = (process.info["uids"] for process in psutil.process_iter(["uids"]))
        return {uids.real for uids in found if uids is not None}
    listed = subprocess.run(["ps", "-A", "-o", "uid="], capture_output=True, text=True, check=False)
    return {int(word) for word in listed.stdout.split() if word.lstrip("-").isdigit()}
