"""The nodes that a Kubernetes site shall have: remembered in a file, for the launcher that comes after."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..base import JobSpec, JobState, JobStatus
from ..bundle import as_data, from_data

OBJECTS = "objects"


@dataclass
class Ticket:
    """One node's wish to run, and what became of it."""

    spec: JobSpec
    status: JobStatus = field(default_factory=lambda: JobStatus(JobState.PENDING, "being submitted"))
    since: float = 0.0
    """When it was submitted, by the monotonic clock."""
    applied: bool = False
    """Whether the cluster has been told of it."""
    life: tuple[str, int] | None = None
    """Which start of which pod was seen last."""
    parting: str = ""
    """Why that pod was asked to leave."""
    replaces: str = ""
    """The uid of a pod that is to go, since it was started in another way."""
    told_until: float = 0.0
    cancelled_at: float | None = None

    @property
    def ordinal(self) -> int:
        """The number at the end of the node's name, and of its pod's."""
        return int(self.spec.name.rpartition("-")[2])


class Tickets:
    """Tickets by id; the caller holds its own lock.

    Parameters
    ----------
    path : Path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._by_id: dict[str, Ticket] = {}
        self.objects = False
        """Whether there may be objects of ours in the cluster."""
        self._read()

    def __iter__(self) -> Iterator[tuple[str, Ticket]]:
        return iter(list(self._by_id.items()))

    def get(self, ticket: str) -> Ticket | None:
        """One of them."""
        return self._by_id.get(ticket)

    def add(self, ticket: str, one: Ticket) -> None:
        """Take in a new one; remembered with the next :meth:`write`, before anybody is told of it."""
        self._by_id[ticket] = one

    def drop(self, ticket: str) -> None:
        """Forget one."""
        if self._by_id.pop(ticket, None) is not None:
            self.write()

    def active(self) -> list[Ticket]:
        """Those that shall run."""
        return [one for one in self._by_id.values() if one.cancelled_at is None]

    def write(self) -> None:
        """Replace the file; none is left where nothing is."""
        kept = {key: one for key, one in self._by_id.items() if one.cancelled_at is None}
        data: dict[str, Any] = {
            key: as_data(one.spec) | {"fingerprint": one.spec.fingerprint} for key, one in kept.items()
        }
        if self.objects:
            data[OBJECTS] = True
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_name(f"{self._path.name}.{os.getpid()}.part")
        part.write_text(json.dumps(data), encoding="utf-8")
        part.replace(self._path)

    def _read(self) -> None:
        try:
            data = json.loads(self._path.read_text("utf-8"))
            self.objects = bool(data.pop(OBJECTS, False))
            self._by_id = {key: Ticket(_spec(one), applied=True) for key, one in data.items()}
        except FileNotFoundError:
            return
        except (ValueError, TypeError, KeyError, AttributeError, AssertionError):
            self.objects = True  # a damaged one remembers nothing; what it knew of is taken down


def _spec(data: dict[str, Any]) -> JobSpec:
    return from_data(data, str(data["fingerprint"]))
