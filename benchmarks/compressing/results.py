"""The figures of all sections in one JSON file that several processes may write."""

import fcntl
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Results:
    """A JSON object by section."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, section: str) -> list[dict[str, Any]]:
        """What is there."""
        rows: list[dict[str, Any]] = self._read().get(section, [])
        return rows

    def put(self, section: str, rows: list[dict[str, Any]]) -> None:
        """Replace a section."""
        self._change(lambda found: found | {section: rows})

    def append(self, section: str, row: dict[str, Any]) -> None:
        """Add to a section."""
        self._change(lambda found: found | {section: [*found.get(section, []), row]})

    def _read(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._path.read_text()) if self._path.exists() else {}
        return found

    def _change(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_suffix(f".part{os.getpid()}")
        # the folder itself is locked: a lock file would stay behind
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            part.write_text(json.dumps(change(self._read()), indent=1).replace("\n     ", " ") + "\n")
            part.replace(self._path)
        finally:
            os.close(folder)


def say(words: str) -> None:
    """Tell a person how far it is."""
    print(words, file=sys.stderr, flush=True)
