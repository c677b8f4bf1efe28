"""SuperNodes as EC2 instances, on demand or spot.

One thread a site (:mod:`.poller`) speaks to AWS. Every instance carries its node's name and ticket as tags:
they say what there is. A request whose answer was lost is sent again under the same client token, after a
look whether its instance is there.
"""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..clock import WALL
from ..errors import LaunchError
from .aws import request
from .aws.book import Book, Wish
from .aws.cloud import Ec2Cloud
from .aws.options import Ec2Options
from .aws.place import Ec2Place
from .base import Found, JobSpec, JobStatus
from .poller import POLL_S, Poller

log = logging.getLogger(__name__)

CONSOLE_S = 30.0
TOGETHER = 8


class Ec2Launcher:
    """Nodes of one site as instances of one account and region.

    Parameters
    ----------
    options : Ec2Options
        What the site asks for.
    folder : Path
        The site's folder on this machine: ``ca.pem``, ``door`` and ``keys/NAME``.
    federation, site : str
        For the tags.
    job_name : str
        Of the site; part of its mark.
    memory : Path
        File that remembers what was started; the site's mark lies beside it.
    poll_s : float
        Seconds between two looks; default 10. After a change they are 2 s apart for a minute.
    cloud : callable
        Makes the connection; default :class:`flower_hpc.launchers.aws.cloud.Ec2Cloud`.
    """

    def __init__(
        self,
        options: Ec2Options,
        *,
        folder: Path,
        federation: str,
        site: str,
        job_name: str,
        memory: Path,
        poll_s: float = POLL_S,
        cloud: Callable[[Ec2Options], Ec2Cloud] = Ec2Cloud,
    ) -> None:
        self.poller = Poller(job_name, self._look, poll_s)
        self.place = Ec2Place(options, folder, federation, site, job_name, memory.with_suffix(".mark"), cloud)
        self._book = Book(memory)
        self._console: dict[str, tuple[float, str]] = {}
        self._wanted: set[str] = set()

    @property
    def trouble(self) -> str:
        """Why nothing is known of the instances at present; empty where all is well."""
        return self.poller.trouble

    @property
    def options(self) -> Ec2Options:
        """What the site asks for; may be set anew."""
        return self.place.options

    @options.setter
    def options(self, options: Ec2Options) -> None:
        if options != self.place.options:
            self.place.ask(options)

    # -- what the controller calls; none of it waits, but `adopt` and `take_down` ---------------------

    def render(self, spec: JobSpec) -> str:
        """The request for a fleet of one, and the user data."""
        return self.place.render(spec)

    def submit(self, spec: JobSpec) -> str:
        """Have an instance made."""
        ticket = self._book.wish(spec)
        self.poller.hurry()
        return ticket

    def status(self, job_id: str) -> JobStatus:
        """Where it was at the last look."""
        return self._book.status(job_id)

    def cancel(self, job_id: str, *, force: bool = False) -> None:
        """End the instance: EC2 has it shut down, and its node hands its work in within the grace."""
        if self._book.end(job_id):
            self.poller.hurry()

    def logs(self, job_id: str, max_bytes: int = 65536) -> str:
        """The end of its console, as EC2 had it at the last look; who asks has it looked at again."""
        self._wanted.add(job_id)
        text = self._console.get(job_id, (0.0, ""))[1]
        return text.encode()[-max_bytes:].decode(errors="ignore")

    def fetch(self, name: str) -> str:
        """What a node's instance has on its console, now; LaunchError where there is none. Waits for AWS."""
        marked = self.place.instances() if self.place.is_marked else []
        own = [one for one in marked if request.as_tags(one).get(request.NODE) == name]
        if not own:
            raise LaunchError(f"{name} has no instance at present")
        newest = max(own, key=lambda one: str(one.get("LaunchTime", "")))
        if text := self.place.cloud.console(newest["InstanceId"]):
            return text
        raise LaunchError(
            f"{name}: EC2 has nothing of the console of {newest['InstanceId']} yet; it takes some minutes"
        )

    def adopt(self) -> Mapping[str, Found]:
        """Instances that an earlier launcher of this memory asked for; others with its mark are ended."""
        if not self.place.is_marked:
            return {}
        try:
            listed, self.poller.trouble = self._listed(), ""
        except LaunchError as error:
            self.poller.trouble, listed = str(error), None
        found = self._book.adopt(listed)
        self.poller.hurry()
        return found

    def take_down(self) -> list[str]:
        """End and remove all that carries the site's mark; says what could not be."""
        self.close()
        return self.place.take_down()

    def close(self) -> None:
        """End the thread; instances go on."""
        self.poller.close()

    def step(self) -> None:
        """End, look and make once."""
        self.poller.look()

    # -- the thread ----------------------------------------------------------------------------------

    def _look(self) -> None:
        found: dict[str, request.Json] = {}
        try:
            self._end_asked()
            if self.poller.closed:
                return
            found = self._listed() if self.place.is_marked else {}
            if self._book.learn(found, self.place.notices(found.values())):
                self.poller.changed()
            self._make(self._book.due(found))
            self.place.tell_door()
            self._read_consoles()
        except LaunchError as error:
            for ticket in self._book.due(found):
                self._book.failed(ticket, error)
            raise

    def _end_asked(self) -> None:
        if asked := self._book.to_end():
            self.place.cloud.terminate([job for job in asked.values() if job])
            self.place.forget(asked)
            self._book.ended(asked)
            for ticket in asked:
                self._console.pop(ticket, None)

    def _listed(self) -> dict[str, request.Json]:
        found, strays = self._book.sort(self.place.instances())
        if strays:
            log.warning("%s: ending what nobody asks for: %s", self.place.job_name, ", ".join(strays))
            self.place.cloud.terminate(strays)
        return found

    def _make(self, due: Mapping[str, Wish]) -> None:
        if due:
            self.place.prepare()
            with ThreadPoolExecutor(TOGETHER) as pool:
                list(pool.map(self._make_one, due, due.values()))

    def _make_one(self, ticket: str, wish: Wish) -> None:
        if self.poller.closed or not self._book.asking(ticket):
            return
        try:
            instance = self.place.make(wish.spec, ticket, wish.attempt)
        except LaunchError as error:
            self._book.failed(ticket, error)
        else:
            self._book.made(ticket, instance)
            log.info("%s: %s is %s", self.place.job_name, wish.spec.name, instance)

    def _read_consoles(self) -> None:
        now, wanted = WALL.now(), list(self._wanted)
        self._wanted.difference_update(wanted)
        for ticket in wanted:
            looked, before = self._console.get(ticket, (-CONSOLE_S, ""))
            if (job := self._book.status(ticket).job) and now - looked >= CONSOLE_S:
                self._console[ticket] = now, self.place.cloud.console(job) or before
