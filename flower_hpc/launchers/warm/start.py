"""Start a node's warm server, and put its ``flwr-clientapp`` where the SuperExec finds it."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

WARM_ENV = "FLOWER_HPC_WARM"
"""On a SuperNode: the packages that its warm server may import, with commas; unset: it has none."""
PACKAGES = (
    "flower_hpc,flwr,flwr_datasets,datasets,medmnist,numpy,pandas,PIL,safetensors,scipy,sklearn,torch,torchaudio,"
    "torchvision,transformers"
)
"""Those that it may import where nothing else is said."""
COMMAND, SOCKET = "flwr-clientapp", "socket"


def start(packages: str, folder: Path) -> dict[str, str]:
    """Start the server, a child of this process that ends with it; what the SuperExec's environment needs.

    Parameters
    ----------
    packages : str
        That it may import, with commas.
    folder : Path
        The node's own, for the socket and the program.

    Returns
    -------
    dict
        ``PATH``; empty where there can be no warm server: not on Linux, or no ``flwr-clientapp`` is found.
    """
    real = shutil.which(COMMAND)
    if sys.platform != "linux" or real is None:
        return {}
    place = folder / "warm"
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    place.chmod(0o700)
    (place / SOCKET).unlink(missing_ok=True)
    _write_program(place, real)
    words = [str(place / SOCKET), real, packages, str(os.getpid())]
    subprocess.Popen([sys.executable, "-P", "-m", f"{__package__}.server", *words])
    return {"PATH": f"{place}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}


def _write_program(place: Path, real: str) -> None:
    # the shell is there to bear any length of path; -I -S: a bare Python starts in hundredths of a second
    words = [sys.executable, "-I", "-S", str(Path(__file__).with_name("shim.py")), str(place / SOCKET), real]
    program = place / COMMAND
    program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    program.chmod(0o700)
