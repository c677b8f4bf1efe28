"""When the SuperLink last took a node's word: the gateway notes it, the controller reads it.

A node is known by the fingerprint of its public key, which a SuperLink has checked before it answers well.
"""

import base64
import binascii
import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from ..clock import WALL, Clock

log = logging.getLogger(__name__)

KEY = b"flwr-public-key"
ALIVE = frozenset({b"/v1/fleet/activate-node", b"/v1/fleet/send-node-heartbeat", b"/v1/fleet/pull-messages"})
GONE = b"/v1/fleet/deactivate-node"
EVERY_S = 1.0


def fingerprint(public_pem: bytes) -> str:
    """Of a public key in PEM, as a node sends it."""
    return hashlib.sha256(public_pem.strip()).hexdigest()[:32]


def sender(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The fingerprint of the key that a request names; empty where it names none."""
    key = next((value for name, value in headers if name.lower() == KEY), b"")
    try:
        return fingerprint(base64.b64decode(key, validate=True)) if key else ""
    except binascii.Error:
        return ""


class _Written:
    """A JSON object in a file that another process writes anew: it is read again only then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._held: dict[str, Any] = {}

    def read(self) -> dict[str, Any]:
        """What it holds; OSError or ValueError where it is not written yet, or not whole."""
        found = self._path.stat()
        if (found.st_mtime_ns, found.st_ino) != self._seen:
            held = json.loads(self._path.read_text(encoding="utf-8"))
            if not isinstance(held, dict):
                raise ValueError(f"{self._path} holds no JSON object")
            self._held, self._seen = held, (found.st_mtime_ns, found.st_ino)
        return self._held


class Withdrawn:
    """Nodes that are wanted no longer, by their keys' fingerprints, as a file lists them.

    Parameters
    ----------
    path : Path, optional
        The file, fingerprints by name, in JSON; default: there are none.
    """

    def __init__(self, path: Path | None) -> None:
        self._file = _Written(path) if path is not None else None
        self._nodes: Collection[str] = ()

    def sent(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether a request comes from one of them."""
        if self._file is None:
            return False
        with contextlib.suppress(OSError, ValueError):  # what was known holds on
            self._nodes = self._file.read().values()
        return bool(self._nodes and (known := sender(headers)) and known in self._nodes)


class Heard:
    """Notes nodes in a file, once a second at most.

    Parameters
    ----------
    path : Path, optional
        The file; default: nothing is noted.
    clock : Clock
        Whose ``wall()`` dates them; default the wall clock.
    """

    def __init__(self, path: Path | None, clock: Clock = WALL) -> None:
        self._path, self._clock = path, clock
        self._nodes: dict[str, float] = {}
        self._written = -EVERY_S

    def note(self, raw_path: bytes, headers: Iterable[tuple[bytes, bytes]], status: int) -> None:
        """Take in how a SuperLink answered a request."""
        if self._path is None or status != 200 or raw_path not in ALIVE | {GONE}:
            return
        if not (known := sender(headers)):
            return
        self._nodes[known] = 0.0 if raw_path == GONE else self._clock.wall()
        if self._clock.now() - self._written >= EVERY_S or raw_path == GONE:
            self._write(self._path)

    def _write(self, path: Path) -> None:
        self._written = self._clock.now()
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            part.write_text(json.dumps(self._nodes), encoding="utf-8")
            part.replace(path)
        except OSError as error:  # nodes are served all the same
            log.warning("%s cannot be written: %s", path, error.strerror)


class Listened:
    """Reads what a gateway has noted.

    Parameters
    ----------
    path : Path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self._file = _Written(path)

    def last(self, known: str) -> float | None:
        """When the node of that fingerprint was heard last, in seconds since the epoch.

        0 where it signed off, None where this gateway has never heard it.
        """
        try:
            nodes = self._file.read()
        except (OSError, ValueError):  # not written yet
            return None
        return float(nodes[known]) if known in nodes else None
