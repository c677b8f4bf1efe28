"""What a site's nodes on EC2 are known to be: one entry a ticket, changed by what is asked and seen."""

import secrets
import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ...clock import WALL
from ...errors import LaunchError
from ..base import Found, JobSpec, JobState, JobStatus
from ..memory import Memory, Record
from . import request
from .errors import NoRoom, Unclear

UNSEEN_S = 180.0
"""AWS may not list for a while what it has just made."""
ROOM_S, AGAIN_S = (10.0, 300.0), (2.0, 60.0)


@dataclass
class Wish:
    """An instance that is to be made.

    ``attempt`` counts definite answers, each of which uses a client token up; ``unclear``: it may be there.
    """

    spec: JobSpec
    attempt: int = 0
    tries: int = 0
    due: float = 0.0
    unclear: bool = False


class Book:
    """Tickets, their wishes and their states; for several threads. Speaks to nobody.

    Parameters
    ----------
    memory : Path
        File that remembers tickets: an instance with another one is nobody's.
    """

    def __init__(self, memory: Path) -> None:
        self._memory = Memory(memory)
        self._status: dict[str, JobStatus] = {}
        self._wishes: dict[str, Wish] = {}
        self._specs: dict[str, JobSpec] = {}
        self._made: dict[str, float] = {}
        self._to_end: set[str] = set()
        self._lock = threading.RLock()

    def wish(self, spec: JobSpec) -> str:
        """A new ticket for what shall be made."""
        with self._lock:
            ticket = f"{spec.name}.{secrets.token_hex(4)}"
            self._memory.note(ticket, spec)
            self._wishes[ticket], self._specs[ticket] = Wish(spec), spec
            self._status[ticket] = JobStatus(JobState.PENDING, "being asked for")
            return ticket

    def status(self, ticket: str) -> JobStatus:
        """Where it is; UNKNOWN for a ticket that is not ours."""
        with self._lock:
            return self._status.get(ticket, JobStatus(JobState.UNKNOWN))

    def end(self, ticket: str) -> bool:
        """Note that it shall end; False for a ticket that is not ours."""
        with self._lock:
            if (status := self._status.get(ticket)) is None:
                return False
            self._wishes.pop(ticket, None)
            if not status.state.final and not status.job:
                self._status[ticket] = JobStatus(JobState.CANCELLED, "before there was an instance")
            self._to_end.add(ticket)
            return True

    def to_end(self) -> dict[str, str]:
        """Which shall end, and their instances, perhaps empty."""
        with self._lock:
            return {ticket: self._status[ticket].job for ticket in self._to_end}

    def ended(self, tickets: Collection[str]) -> None:
        """They were told to. What comes up with such a ticket from now on is nobody's."""
        with self._lock:
            self._to_end -= set(tickets)
            for ticket in tickets:
                self._memory.forget(ticket)
                self._specs.pop(ticket, None)
                status = self._status[ticket]
                if not status.state.final:
                    self._status[ticket] = replace(status, state=JobState.CANCELLED, reason="asked to end")

    def sort(self, instances: Iterable[request.Json]) -> tuple[dict[str, request.Json], list[str]]:
        """The instance of each ticket, and the ids of those that live and are nobody's."""
        with self._lock:
            known = self._memory.records()

            def rank(one: request.Json) -> tuple[bool, bool, float]:
                own = self._job_of(_ticket(one), known) == one["InstanceId"]
                return not own, request.is_over(one), one["LaunchTime"].timestamp()

            found: dict[str, request.Json] = {}
            strays = []
            for one in sorted(instances, key=rank):
                if _ticket(one) in known and _ticket(one) not in found:
                    found[_ticket(one)] = one
                elif not request.is_over(one):
                    strays.append(str(one["InstanceId"]))
        return found, strays

    def _job_of(self, ticket: str, known: Mapping[str, Record]) -> str:
        status = self._status.get(ticket)
        return status.job if status is not None else (known[ticket].job if ticket in known else "")

    def adopt(self, found: Mapping[str, request.Json] | None) -> dict[str, Found]:
        """What an earlier book's instances are now; None where nobody knows: then all may live."""
        adopted = {}
        with self._lock:
            for ticket, record in self._memory.records().items():
                instance = None if found is None else found.get(ticket)
                if found is not None and (instance is None or request.is_over(instance)):
                    self._status[ticket] = JobStatus(JobState.CANCELLED, "gone")
                    self._to_end.add(ticket)
                    continue
                unknown = JobStatus(JobState.PENDING, "seen before", job=record.job)
                self._status[ticket] = request.status_of(instance) if instance else unknown
                self._made[ticket] = WALL.now()
                adopted[record.name] = Found(ticket, record.fingerprint)
        return adopted

    def learn(self, found: Mapping[str, request.Json], notices: Mapping[str, float]) -> bool:
        """What was seen, and spot requests that end by when they were told; whether anything has changed."""
        with self._lock:
            before = dict(self._status)
            for ticket, instance in found.items():
                wish = self._wishes.get(ticket)
                if wish is None:
                    self._see(ticket, instance, notices)
                elif wish.unclear and not request.is_over(instance):
                    self.made(ticket, instance["InstanceId"])
                    self._see(ticket, instance, notices)
            for ticket, status in self._status.items():
                unseen = found.get(ticket, {}).get("InstanceId") != status.job
                late = WALL.now() - self._made.get(ticket, 0.0) > UNSEEN_S
                if status.job and not status.state.final and unseen and late:
                    gone = replace(status, state=JobState.CANCELLED, reason="EC2 lists it no more")
                    self._status[ticket] = gone
            return before != self._status

    def _see(self, ticket: str, instance: request.Json, notices: Mapping[str, float]) -> None:
        old = self._status.get(ticket)
        if old is None or old.state.final or old.job not in ("", instance["InstanceId"]):
            return
        new = request.status_of(instance, notices.get(instance.get("SpotInstanceRequestId", "")))
        never = instance.get("StateReason", {}).get("Code") == request.NEVER_TAKEN
        if new.state.final and never and old.state is JobState.PENDING and ticket in self._specs:
            wish = Wish(self._specs[ticket], attempt=secrets.randbits(32))
            self._wait(ticket, wish, NoRoom(new.reason))
        else:
            self._status[ticket] = new

    def due(self, found: Mapping[str, request.Json]) -> dict[str, Wish]:
        """Wishes whose time has come, but those whose instance was seen."""
        with self._lock:
            seen = {ticket for ticket, one in found.items() if not request.is_over(one)}
            return {t: w for t, w in self._wishes.items() if w.due <= WALL.now() and t not in seen}

    def asking(self, ticket: str) -> bool:
        """Note that from now on it may be there; False where it is not wished for any more."""
        with self._lock:
            if ticket in self._wishes:
                self._wishes[ticket].unclear = True
            return ticket in self._wishes

    def made(self, ticket: str, instance: str) -> None:
        """There is an instance; one that was cancelled meanwhile keeps its state, and is ended."""
        with self._lock:
            self._wishes.pop(ticket, None)
            self._made[ticket] = WALL.now()
            status = self._status[ticket]
            booting = JobStatus(JobState.PENDING, "the instance boots", job=instance)
            self._status[ticket] = replace(status, job=instance) if status.state.final else booting
            if self._memory.get(ticket) is not None:
                self._memory.name_job(ticket, instance)

    def failed(self, ticket: str, error: LaunchError) -> None:
        """It could not be made; all but a refusal is tried again, later and later."""
        with self._lock:
            wish = self._wishes.get(ticket)
            if wish is None:  # cancelled meanwhile
                return
            if isinstance(error, Unclear):
                self._wait(ticket, wish, error)
            elif isinstance(error, NoRoom):
                wish.unclear, wish.attempt = False, wish.attempt + 1
                self._wait(ticket, wish, error)
            else:
                del self._wishes[ticket]
                self._status[ticket] = JobStatus(JobState.FAILED, str(error), refused=True)

    def _wait(self, ticket: str, wish: Wish, error: LaunchError) -> None:
        first, last = AGAIN_S if isinstance(error, Unclear) else ROOM_S
        delay = min(last, first * 2 ** min(wish.tries, 16))
        wish.tries, wish.due = wish.tries + 1, WALL.now() + delay
        self._wishes[ticket] = wish
        self._status[ticket] = JobStatus(JobState.PENDING, f"{error}; next try in {delay:g} s")


def _ticket(instance: Mapping[str, object]) -> str:
    return request.as_tags(instance).get(request.TICKET, "")
