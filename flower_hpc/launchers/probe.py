"""What a compute node is like for a SuperNode: looked at there, told through the shared folder.

It imports no more than a pilot does: where this cannot start, no pilot could either.
"""

import json
import os
import platform
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..clock import WALL
from .filling import with_programs
from .pilot import scratch_folder

PACKAGES = ("flower-hpc", "flwr", "numpy")
PROGRAMS = ("flower-supernode", "flower-superexec")
CERTIFIED = "127.0.0.1"
"""The name that the SuperLink's certificate is asked for: a SuperNode reaches it over its own loopback."""
DIAL_S = 10.0
TRIAL_S = 60.0


@dataclass(frozen=True)
class Way:
    """Where nodes come in: the gateway's or the relay's address, and the CA in PEM."""

    host: str
    port: int
    ca: str


@dataclass(frozen=True)
class Probe:
    """Looks around on a compute node and writes what it saw as JSON to ``report``; called there.

    Parameters
    ----------
    report : Path
        In the shared folder.
    way : Way, optional
        What to reach from the node; default nothing.
    data_dir : str, optional
        A folder that should be there; default none.
    """

    report: Path
    way: Way | None = None
    data_dir: str | None = None

    def __call__(self) -> str:
        """Write the report, at once or not at all, and return it."""
        seen = {
            "host": socket.gethostname(),
            "node": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
            "python": sys.executable,
            "versions": versions(),
            "programs": {name: where(name) for name in PROGRAMS},
            "gpus": gpus(os.environ),
            "way": None if self.way is None else dial(self.way),
            "network": private_network(),
            "scratch": scratch(),
            "data_dir": self.data_dir is None or readable(self.data_dir),
        }
        text = json.dumps(seen | {"clock": WALL.wall()})
        part = self.report.with_name(f"{self.report.name}.part")
        part.write_text(text, encoding="utf-8")
        part.replace(self.report)
        return text


def versions() -> dict[str, str | None]:
    """Of Python and the packages that must be the same everywhere; None for one that is missing."""
    found: dict[str, str | None] = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def where(program: str) -> str | None:
    """Where a SuperNode would find a program of Flower's."""
    return shutil.which(program, path=with_programs(os.environ)["PATH"])


def readable(folder: str) -> bool:
    """Whether a folder is there and may be read."""
    return os.path.isdir(folder) and os.access(folder, os.R_OK | os.X_OK)


def gpus(environment: Mapping[str, str]) -> dict[str, int | None]:
    """How many GPUs the batch system names, and how many the driver shows; None where it cannot be asked."""
    names = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
    given = next((environment[name] for name in names if environment.get(name)), "")
    try:
        command = ["nvidia-smi", "-L"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TRIAL_S)
        driver = sum(line.startswith("GPU ") for line in done.stdout.splitlines())
    except (OSError, subprocess.TimeoutExpired):
        driver = None
    return {"given": len([word for word in given.split(",") if word]), "driver": driver}


def dial(way: Way) -> dict[str, str]:
    """``{}`` where the federation answers, else how far it went, as ``stage``, and the system's ``words``."""
    stage = "tcp"
    try:
        with socket.create_connection((way.host, way.port), DIAL_S) as raw:
            stage = "tls"
            context = ssl.create_default_context(cadata=way.ca)
            with context.wrap_socket(raw, server_hostname=CERTIFIED):
                return {}
    except socket.gaierror as error:
        return {"stage": "name", "words": str(error.strerror or error)}
    except (OSError, ValueError) as error:
        return {"stage": stage, "words": str(getattr(error, "strerror", None) or error)}


def private_network() -> str:
    """Why an app gets no network of its own here; empty where it does."""
    # by its name: launchers know of no network, as a pilot's command does not
    command = [sys.executable, "-m", "flower_hpc.network.namespace"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TRIAL_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"it could not be tried: {error}"
    if done.returncode == 0:
        return ""
    return " ".join(done.stdout.split()) or f"the trial ended with exit code {done.returncode}"


def scratch() -> dict[str, Any]:
    """The node's own disk, as a pilot uses it: ``path``, and ``free_gb`` or the system's ``words``."""
    try:
        with scratch_folder() as folder:
            return {"path": str(folder.parent), "free_gb": shutil.disk_usage(folder).free / 1e9}
    except OSError as error:
        return {"path": error.filename or "TMPDIR", "words": error.strerror or str(error)}
