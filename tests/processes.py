"""Shared by the tests with real processes: which are there, and how far a run is."""

import os
import re
import sys
from pathlib import Path

from flower_hpc.telemetry import read_events

BIN = Path(sys.executable).parent


def left_of(folder):
    """Processes whose command line or environment names the folder, zombies included by their parent."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in words and int(entry.name) != os.getpid():
            found.append(words)
    return found


def pids_of(folder, program):
    """Processes of a program whose environment names the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            here = str(folder).encode() in (entry / "environ").read_bytes()
            # a script is the second word; what only forwards for it has its words further behind
            words = (entry / "cmdline").read_bytes().split(b"\0")[:2]
            if here and any(word.endswith(f"/{program}".encode()) for word in words):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def rounds_begun(events):
    return [e["round"] for e in read_events(events) if e["event"] == "round_started"]


def named(value):
    """A parameter's name without addresses: processes that share the tests out must agree on it."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))
