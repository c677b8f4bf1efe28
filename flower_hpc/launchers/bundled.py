"""On a host without a shared disk: keeps the SuperNode that a bundle describes, and shows its log.

``python -m flower_hpc.launchers.bundled NAME [--root DIR] [--home DIR] [--grace-s SECONDS]``

The bundle lies in ``root``; what shall last (state, log) below ``home``, which is made where it is missing.
In NAME ``{ordinal}`` stands for the number at the end of the pod's name.

The process that this is gets TERM when its host goes away; it then has ``grace-s`` seconds to hand work in.
"""

import argparse
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from ..clock import WALL
from ..errors import LaunchError
from .base import JobSpec
from .bundle import ADDRESS, HEALTH, HEALTH_PORT, HOME, POD, ROOT, placed, unpack
from .pilot import Leaving, Pilot, PilotError
from .ports import join

OR_HOST = "--or-host"
LOOK_S, SHOW_S = 1.0, 0.5
WAIT_S = 300.0


def main() -> int:
    """Run until asked to leave; exit code 1 where the SuperNode ended by itself."""
    parser = argparse.ArgumentParser(prog="flower_hpc.launchers.bundled")
    parser.add_argument("name")
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--home", type=Path, default=HOME)
    parser.add_argument("--grace-s", type=float, default=30.0)
    asked = parser.parse_args()
    return fly(asked.root.absolute(), asked.name, asked.grace_s, home=asked.home.absolute())


def fly(root: Path, name: str, grace_s: float, leaving: Leaving | None = None, *, home: Path = HOME) -> int:
    """Keep the node until it is asked to leave; the exit code of :func:`main`."""
    os.environ[HEALTH] = health_address()
    try:
        ordinal = os.environ.get(POD, "").rpartition("-")[2]
        spec = here(find(root, name.replace("{ordinal}", ordinal)), root, home)
        if spec.cwd.is_relative_to(home):  # models lie there, and others may use the host
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
        spec.cwd.parent.mkdir(parents=True, exist_ok=True)
        with shown(spec.log):
            print(Pilot(spec, kill_wait_s=grace_s, leaving=leaving)(), flush=True)
    except (PilotError, LaunchError) as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        return 1
    except OSError as error:
        print(f"PilotError: {error.strerror}: {error.filename}", flush=True)
        return 1
    return 0


def health_address() -> str:
    """Where Flower's health server listens: in a pod where its probes ask, elsewhere out of anyone's way."""
    address = os.environ.get(ADDRESS)
    return join(address, HEALTH_PORT) if address else "127.0.0.1:{port:health}"


def here(spec: JobSpec, root: Path, home: Path) -> JobSpec:
    """``spec`` as it is started on this host."""
    spec = placed(spec, root, home)
    if not os.environ.get(POD):
        return spec
    # a pod has a network of its own, and its probes must reach the node
    return replace(spec, command=tuple("--host" if each == OR_HOST else each for each in spec.command))


def find(root: Path, name: str, wait_s: float = WAIT_S) -> JobSpec:
    """The node's spec, once the bundle holds it; LaunchError where that does not come about."""
    until, spec = WALL.now() + wait_s, unpack(root, name)
    if spec is None:  # a Secret may come a little later than its pod
        print(f"{root} has no bundle for {name}: waiting {wait_s:g} s for one", flush=True)
    while spec is None:
        if WALL.now() > until:
            raise LaunchError(f"{root} says nothing of {name} after {wait_s:g} s")
        WALL.sleep(LOOK_S)
        spec = unpack(root, name)
    return spec


@contextmanager
def shown(path: Path) -> Iterator[None]:
    """What is appended to the log meanwhile goes to standard output too, where the platform collects it."""
    over, position = threading.Event(), path.stat().st_size if path.exists() else 0

    def show() -> None:
        nonlocal position
        with suppress(OSError), path.open("rb") as log:
            log.seek(position)
            while data := log.read(65536):
                position += len(data)
                os.write(sys.stdout.fileno(), data)

    def work() -> None:
        while not over.wait(SHOW_S):
            show()
        show()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(2)


if __name__ == "__main__":
    sys.exit(main())
