"""A warm server as a process of its own, whose forks run the code that their caller names."""

import contextlib
import os
import subprocess
import sys

from doors import alive, children, until
from flower_hpc.launchers.warm import shim

STAND_IN = """
import os, sys
from flower_hpc.launchers.warm.server import main
if __name__ == "__main__":
    if "AS_UID" in os.environ:
        os.geteuid = lambda: int(os.environ["AS_UID"])
    again_s = float(os.environ.get("AGAIN_S", "60"))
    main(*sys.argv[1:], entry=lambda: lambda: exec(os.environ["CODE"], {}), again_s=again_s)
"""
REAL = '#!/bin/sh\necho real "$@"\n'


class Warm:
    """Calls to a running server; ``CODE`` is what a fork does, and REAL says ``real`` and its arguments."""

    def __init__(self, folder, process, **env):
        self.folder, self.process, self.env = folder, process, os.environ | env

    def start(self, code="", *arguments, **more):
        words = [
            sys.executable,
            "-I",
            "-S",
            shim.__file__,
            str(self.folder / "socket"),
            str(self.folder / "real"),
        ]
        env = self.env | {"CODE": code} | more.pop("env", {})
        return subprocess.Popen(
            [*words, *arguments], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more
        )

    def __call__(self, code="", *arguments, code_is=0, **more):
        with self.start(code, *arguments, **more) as caller:
            said, errors = caller.communicate(timeout=120)
        assert caller.returncode == code_is, errors
        return said.strip()

    @property
    def server(self):
        """The pid of the server, a child of the process that starts it again; None where there is none."""
        return next(iter(children(self.process.pid)), None)

    def kill(self):
        """Kill that process, and with it the server."""
        server = self.server
        self.process.kill()
        self.process.wait()
        until(lambda: server is None or not alive(server))

    @property
    def said(self):
        return (self.folder / "log").read_text().splitlines()


@contextlib.contextmanager
def warm(folder, packages="", parent=None, answers="up", **env):
    """A running server with a stand-in for Flower's command."""
    (folder / "driver.py").write_text(STAND_IN)
    (folder / "real").write_text(REAL)
    (folder / "real").chmod(0o700)
    words = [str(folder / "socket"), str(folder / "real"), packages, str(parent or os.getpid())]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, str(folder / "driver.py"), *words],
            env=os.environ | env,
            stderr=log,
            start_new_session=True,
        )
    server = Warm(folder, process, **env)
    try:
        until((folder / "socket").exists)
        until(lambda: server("print('up')") == answers)
        yield server
    finally:
        server.kill()
