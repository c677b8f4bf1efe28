"""Become a SuperNode whose SuperExec proves who it is: ``python -m ... ADDRESS -- flower-supernode ARG...``.

In Flower's own ``--isolation subprocess`` the SuperNode's Runtime API asks nobody for a proof, and every user
of the host may take tasks from it. Here both know a secret that is made anew at each start and lies in a file
that only its owner can read. The SuperExec is the SuperNode's child and ends with it, as Flower's own does.
"""

import os
import secrets
import subprocess
import sys
from pathlib import Path

from ..process import identity
from ..protocol import SUPERNODE_ENV
from .warm import WARM_ENV, start

SECRET = "superexec.secret"
SECRET_BYTES = 32


def main() -> None:
    """Start the SuperExec, then be the SuperNode."""
    address, dashes, *command = sys.argv[1:]
    if dashes != "--" or not command:
        sys.exit("usage: ADDRESS -- COMMAND ARG...")
    home = Path(
        os.environ.get("FLWR_HOME") or Path.cwd()
    ).absolute()  # of a batch job: on its host's own disk
    secret = str(write_secret(home))
    known = ["--superexec-auth-secret-file", secret]
    superexec = str(Path(command[0]).with_name("flower-superexec"))
    ours = ["--insecure", "--runtime-api-address", address, "--parent-pid", str(os.getpid())]
    packages = os.environ.get(WARM_ENV, "")
    # what is to end with the SuperNode, which this process becomes, looks for it by that
    os.environ[SUPERNODE_ENV] = identity()
    warm = start(packages, home) if packages else {}
    subprocess.Popen([superexec, *ours, *known], env=os.environ | warm)
    os.execv(command[0], [*command, "--isolation", "process", *known])


def write_secret(folder: Path) -> Path:
    """A new secret in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / SECRET
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secrets.token_bytes(SECRET_BYTES))
    return path


if __name__ == "__main__":
    main()
