"""Register nodes with the SuperLink: ``flwr supernode register`` for each, in one process.

A process for each would import Flower anew each time, 2 s a node. This runs the same console script again and
again, so nothing of Flower but its command line is relied on.
"""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from .state import StateDir, write_json

TAKEN = "already in use"


def register(key: Path, connection: str, name: str) -> dict[str, Any]:
    """What ``flwr supernode register`` says of one key: ``node-id``, or ``error-message``."""
    (script,) = entry_points(group="console_scripts", name="flwr")
    arguments = ["supernode", "register", str(key), connection, "--name", name, "--format", "json"]
    old, sys.argv = sys.argv, ["flwr", *arguments]
    with tempfile.TemporaryFile() as file:
        try:
            with _stdout_to(file.fileno()), contextlib.suppress(SystemExit):
                script.load()()
        finally:
            sys.argv = old
        file.seek(0)
        text = file.read().decode(errors="replace")
    try:
        said: dict[str, Any] = json.loads(text[text.index("{") :])
    except ValueError:
        said = {"success": False, "error-message": " ".join(text.split()) or "it said nothing"}
    return said


@contextlib.contextmanager
def _stdout_to(target: int) -> Iterator[None]:
    # the descriptor itself: Flower prints JSON past whatever sys.stdout was replaced with
    saved = os.dup(1)
    try:
        sys.stdout.flush()
        os.dup2(target, 1)
        yield
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)


def main() -> int:
    """``STATE_DIR CONNECTION NAME...``: writes registered.json; exit code 1 where a node was refused."""
    state, connection, names = StateDir(Path(sys.argv[1])), sys.argv[2], sys.argv[3:]
    done: dict[str, int | None] = {}
    refused = 0
    for name in names:
        said = register(state.keys / f"{name}.pub", connection, name)
        words = str(said.get("error-message", ""))
        if said.get("success"):
            done[name] = int(said["node-id"])
        elif TAKEN in words:  # registered before, and we were ended before we noted it
            done[name] = None
        else:
            refused += 1
            print(f"{name} was refused: {words}", flush=True)
    write_json(state.registered, done)
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
