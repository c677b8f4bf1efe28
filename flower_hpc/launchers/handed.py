"""Nodes that others start, elsewhere: nothing is started here, and the gateway tells when they are there.

What they need is handed over by ``flower-hpc bundle SITE``.
"""

import secrets
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..clock import WALL, Clock
from ..errors import LaunchError
from .base import Found, JobSpec, JobState, JobStatus

SILENT_S = 99.0
"""A node is away that was not heard for so long: just before the controller itself takes it for silent."""
WHERE = "elsewhere"


@dataclass
class _Wish:
    name: str
    last: float = 0.0
    was_there: bool = False
    cancelled: bool = False


class HandedLauncher:
    """Waits for the nodes of one site.

    Parameters
    ----------
    site : str
        Its name.
    heard : callable
        When the node of that name was heard last, in seconds since the epoch; 0 where it signed off, None
        where nothing is known of it.
    clock : Clock
        Default: the wall clock.
    """

    def __init__(self, site: str, heard: Callable[[str], float | None], clock: Clock = WALL) -> None:
        self.site, self._heard, self._clock = site, heard, clock
        self._wishes: dict[str, _Wish] = {}

    def render(self, spec: JobSpec) -> str:
        """What whoever has its bundle starts."""
        return (
            f"# others start it, with what `flower-hpc bundle {self.site}` hands over:\n"
            f"{start_command(spec.name)}\n# which runs: {shlex.join(spec.command)}"
        )

    def submit(self, spec: JobSpec) -> str:
        """Wait for the node."""
        ticket = f"{spec.name}.{secrets.token_hex(4)}"
        self._wishes[ticket] = _Wish(spec.name)
        return ticket

    def status(self, job_id: str) -> JobStatus:
        """Running while the gateway hears it, else pending."""
        wish = self._wishes.get(job_id)
        if wish is None or wish.cancelled:
            return JobStatus(JobState.UNKNOWN if wish is None else JobState.CANCELLED)
        last = self._heard(wish.name)
        wish.last = wish.last if last is None else last  # a new gateway has heard nobody yet
        if wish.last > self._clock.wall() - SILENT_S:
            wish.was_there = True
            return JobStatus(JobState.RUNNING, job=WHERE)
        gone = "it signed off" if not wish.last else f"it was not heard for {SILENT_S:g} s"
        what = f"{gone}, and waits to be started again" if wish.was_there else "waits to be started"
        return JobStatus(JobState.PENDING, f"{what} elsewhere: `flower-hpc bundle {self.site}`", job=WHERE)

    def cancel(self, job_id: str, *, force: bool = False) -> None:
        """Wait for it no longer; where it runs it is left alone."""
        if job_id in self._wishes:
            self._wishes[job_id].cancelled = True
            if force:
                del self._wishes[job_id]

    def logs(self, job_id: str, max_bytes: int = 65536) -> str:
        """Nothing: its log is where it was started."""
        return ""

    def fetch(self, name: str) -> str:
        """LaunchError: nobody here can."""
        raise LaunchError(
            f"the log of {name} is where it was started: logs/{name}.log in its home, or its pod's"
        )

    def adopt(self) -> Mapping[str, Found]:
        """Nothing is remembered: who is there is heard."""
        return {}

    def close(self) -> None:
        """Nothing is held."""


def start_command(name: str, root: str = "DIR", grace_s: int | None = None) -> str:
    """What starts a node on a host that has the bundle in ``root``."""
    grace = "" if grace_s is None else f" --grace-s {grace_s}"
    return f"python -m flower_hpc.launchers.bundled {name} --root {root} --home ~/flower-hpc{grace}"
