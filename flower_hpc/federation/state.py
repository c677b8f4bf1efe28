"""The state folder of a federation: what is where in it, and how it is written."""

import fcntl
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import ConfigError, FederationError

HOME_ENV = "FLOWER_HPC_HOME"
OWNER_ENV = "FLOWER_HPC_OWNER"
"""Set on every process that belongs to a federation: its state folder. What is left over is found by it."""


def home() -> Path:
    """Where federations keep their state: ``$FLOWER_HPC_HOME``, default ``~/.flower-hpc``."""
    return Path(os.environ.get(HOME_ENV) or Path.home() / ".flower-hpc").absolute()


class StateDir:
    """Paths in a federation's state folder; making one touches nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "federation.json"
        self.desired = path / "desired.json"
        self.status = path / "status.json"
        self.roster = path / "nodes.json"
        self.database = path / "superlink.db"
        self.ca = path / "ca.pem"
        self.ca_key = path / "ca.key"
        self.server_cert = path / "superlink.pem"
        self.server_key = path / "superlink.key"
        self.keys = path / "keys"
        self.flwr = path / "flwr"
        self.nodes = path / "nodes"
        self.logs = path / "logs"
        self.registered = path / "registered.json"
        self.link = path / "link.json"
        self.jobs = path / "jobs"
        self.heard = path / "heard.json"
        self.withdrawn = path / "withdrawn.json"
        self.elastic = path / "elastic"

    def create(self) -> None:
        """Make the folder, for this user alone.

        Raises
        ------
        ConfigError
            It cannot be made, is a link, or it or its parent belongs to someone else.
        """
        parent = self.path.parent
        try:
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # whoever owns the parent can put another folder in our folder's place
            if parent.stat().st_uid not in (os.getuid(), 0):
                raise ConfigError(f"{HOME_ENV}: {parent} must belong to you, it is another user's")
            self.path.mkdir(mode=0o700, exist_ok=True)
            found = self.path.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                raise ConfigError(f"state folder {self.path} must be a folder of yours, not a link")
            self.path.chmod(0o700)
            for folder in (self.keys, self.flwr, self.nodes, self.logs):
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            words = error.strerror or error
            raise ConfigError(f"state folder {self.path} cannot be made: {words} (set {HOME_ENV})") from error

    def log(self, name: str) -> Path:
        """The log of a node, of ``superlink`` or of ``controller``."""
        return self.logs / f"{name}.log"

    @contextmanager
    def cli_lock(self) -> Iterator[None]:
        """One command at a time starts, changes or sweeps a federation; others wait."""
        with (self.path / "cli.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def hold(self, name: str) -> int | None:
        """Take the lock ``name`` for the life of this process; None where another holds it."""
        file = os.open(self.path / name, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            return None
        return file

    def held(self, name: str) -> bool:
        """Whether a living process holds the lock ``name``; no pid is trusted for this."""
        try:
            file = os.open(self.path / name, os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(file)
        return False


CONTROLLER_LOCK = "controller.lock"
PROCESSES = "processes.json"
OWNER_LOCK = "owner.lock"


def write_json(path: Path, value: Any) -> None:
    """Replace a file at once: a reader sees the old content or the new."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(value, indent=1), encoding="utf-8")
    part.replace(path)


def read_json(path: Path) -> Any:
    """What a JSON file holds; None where it is missing.

    Raises
    ------
    FederationError
        The file is damaged, in one line with its path.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise FederationError(f"{path} is damaged: {' '.join(str(error).split())}") from error
