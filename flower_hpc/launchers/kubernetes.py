"""SuperNodes as pods: a site is one StatefulSet, and one watch tells of them all.

The site's objects are pure translations (:mod:`.k8s.manifests`) and are sent by server-side apply; a thread
applies what differs from what was sent last, so that nothing that the controller calls waits for a cluster.
"""

import logging
import secrets
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import yaml

from ..clock import WALL
from ..errors import LaunchError
from . import bundle
from .base import Found, JobSpec, JobState, JobStatus
from .filling import read_door
from .k8s import state
from .k8s.api import Api
from .k8s.applied import Applied
from .k8s.connect import ClusterError
from .k8s.job import jobs_selector
from .k8s.manifests import manifests
from .k8s.options import KubernetesOptions
from .k8s.place import Manifest, Place
from .k8s.pods import Pods, wait_for
from .k8s.reach import reached
from .k8s.reader import Reader
from .k8s.tickets import Ticket, Tickets

log = logging.getLogger(__name__)

LOOK_S = 1.0
QUIET_S, SETTLE_S = 0.1, 2.0
PARKED_S = 3.0
"""A node that is cancelled keeps its pod so long: where it is started anew at once, it goes on with it."""
REFUSED_S = 90.0
"""One that was refused keeps it longer than its keeper's longest pause."""
HASTE_S, GONE_S = 5, 45.0
FOR_GOOD = (400, 401, 403, 404, 413, 422)
"""Answers that will be the same the next time."""


class KubernetesLauncher:
    """Nodes of one site as pods of one cluster.

    Parameters
    ----------
    options : KubernetesOptions
        What the site asks for.
    place : Place
        Whose its objects are; no other launcher may have the name.
    memory : Path
        File that remembers the nodes, for the launcher that comes after a killed one.
    api : callable
        Makes what speaks to the cluster; default: through the official client.
    """

    def __init__(
        self,
        options: KubernetesOptions,
        place: Place,
        *,
        memory: Path,
        api: Callable[[KubernetesOptions], Api] = Api.of,
    ) -> None:
        self.options, self.place = options, place
        self.trouble = ""
        """Why nothing is known of the pods at present; empty where all is well."""
        self.api = api(options)
        self._tickets = Tickets(memory)
        self._lock, self._wake, self._over = threading.RLock(), threading.Event(), threading.Event()
        self._pods = Pods(self.api, place.selector, self._wake)
        self._applied = Applied(self.api, place)
        self._reader = Reader(place.name, self._applied.why_no_pod)
        self._thread: threading.Thread | None = None

    # -- what the controller calls; none of it waits -------------------------------------------------

    def render(self, spec: JobSpec) -> str:
        """The site's objects as YAML, for ``spec`` alone; what is secret is left out."""
        return self.render_all([spec], self._door())

    def render_all(self, specs: Iterable[JobSpec], door: str) -> str:
        """The site's objects as YAML that ``kubectl apply`` takes; what is secret is left out.

        ``door`` is where the SuperLink is, as ``tcp:HOST:PORT``.
        """
        count = max((_ordinal(spec.name) + 1 for spec in specs), default=0)
        way = reached(door)
        objects = manifests(self.options, self.place, count, {}, way)
        hints = ["# the Secret is empty here: `flower-hpc up` fills it with the CA and the nodes' keys"]
        if not way:
            hints.append("# the NetworkPolicy gets the gateway's address at `up`: its port is not known yet")
        return "\n".join(hints) + "\n---\n" + yaml.safe_dump_all(objects, sort_keys=False)

    def submit(self, spec: JobSpec) -> str:
        """Have a pod run it; what is submitted before the thread comes to it is one change."""
        ticket = f"{spec.name}.{secrets.token_hex(4)}"
        with self._lock:
            self._tickets.add(ticket, Ticket(spec, since=WALL.now()))
        self._hurry()
        return ticket

    def status(self, job_id: str) -> JobStatus:
        """Where the node was at the last word of the watch."""
        with self._lock:
            one = self._tickets.get(job_id)
            return JobStatus(JobState.UNKNOWN) if one is None else one.status

    def cancel(self, job_id: str, *, force: bool = False) -> None:
        """Have no pod for it, soon: its pod hands work in and has the site's grace for that."""
        with self._lock:
            one = self._tickets.get(job_id)
            if one is None or one.cancelled_at is not None:
                return
            one.cancelled_at = WALL.now()
            if not one.status.state.final:
                one.status = replace(one.status, state=JobState.CANCELLED, reason="cancelled")
            self._tickets.write()
        self._hurry()

    def logs(self, job_id: str, max_bytes: int = 65536) -> str:
        """Why its last start ended, in the words that the pod's status holds; see :meth:`fetch` for all."""
        with self._lock:
            one = self._tickets.get(job_id)
        pod = self._pods.now().get(self._pod(one)) if one is not None else None
        return "" if pod is None else str(state.ended_container(pod).get("message", ""))[-max_bytes:]

    def fetch(self, name: str, max_bytes: int = 1 << 20) -> str:
        """What the pod of a node wrote, now; LaunchError where there is none. Waits for the cluster."""
        return self.api.log(f"{self.place.name}-{_ordinal(name)}", "supernode", max_bytes)

    def adopt(self) -> Mapping[str, Found]:
        """The nodes that an earlier launcher had; all of them may live."""
        self._applied.foresee(jobs=self.options.standing is not None)
        with self._lock:
            known = [(ticket, one) for ticket, one in self._tickets if one.cancelled_at is None]
            self._reader.expect({self._pod(one): one.spec.fingerprint for _, one in known})
            for _, one in known:
                one.status, one.since = JobStatus(JobState.PENDING, "seen before"), WALL.now()
        if known:
            self._hurry()
        return {one.spec.name: Found(ticket, one.spec.fingerprint) for ticket, one in known}

    def close(self) -> None:
        """End the threads; pods go on."""
        self._over.set()
        self._wake.set()
        self._pods.close()
        if self._thread is not None:
            self._thread.join(5)
        self.api.close()

    def take_down(self) -> list[str]:
        """Delete all of the site, at once; what is left, in words. Waits for the cluster."""
        self._over.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(5)
        if not self._tickets.objects:
            return []
        try:
            # its pods would have all of their grace: nobody waits for their work any more
            self._applied.delete_at_once(HASTE_S)
            self._pods.start()
            gone = wait_for(self._pods, GONE_S)
            for kind in ("Job", "Pod") if self.options.standing else ():
                self.api.delete_all(kind, jobs_selector(self.place), HASTE_S)
            self._applied.delete(self._objects(0, {}))
        except LaunchError as error:
            chosen = f"-l app.kubernetes.io/instance={self.place.name}"
            return [f"{error}; what may be left shows: kubectl get all,secret,netpol {chosen}"]
        if not gone:
            return [f"pods {', '.join(sorted(self._pods.now()))} do not end"]
        with self._lock:
            for ticket, _ in self._tickets:
                self._tickets.drop(ticket)
            self._tickets.objects = False
            self._tickets.write()
        return []

    # -- the thread ----------------------------------------------------------------------------------

    def _hurry(self) -> None:
        self._wake.set()
        if self._thread is None and not self._over.is_set():
            self._thread = threading.Thread(target=self._work, name=self.place.name, daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while not self._over.is_set():
            self._wake.wait(LOOK_S)
            if self._wake.is_set():
                self._settle()
            if not self._over.is_set():
                self.step()

    def _settle(self) -> None:
        # what comes together goes together: a large site's nodes are submitted over a second
        until = WALL.now() + SETTLE_S
        while self._wake.is_set() and WALL.now() < until and not self._over.is_set():
            self._wake.clear()
            self._over.wait(QUIET_S)

    def step(self) -> None:
        """Apply what has changed, and read what is seen; called by the thread."""
        try:
            self._let_go()
            if self._tickets.active():
                self._make()
                self._replace()
            elif self._tickets.objects and not list(self._tickets):
                self._remove()
            self.trouble = ""
            if self._pods.trouble is not None:
                self._hear(self._pods.trouble, FOR_GOOD)
        except ClusterError as error:
            self._hear(error, (0, *FOR_GOOD))
        except LaunchError as error:
            self.trouble = str(error)
        except Exception:  # a thread that dies would leave the site as it is for ever
            log.exception("%s: a step failed", self.place.name)
        if self._tickets.objects:
            self._pods.start()
        with self._lock:
            self._read()

    def _let_go(self) -> None:
        with self._lock:
            now = WALL.now()
            newest = {one.ordinal: ticket for ticket, one in self._tickets}
            for ticket, one in self._tickets:
                if one.cancelled_at is None:
                    continue
                patience = PARKED_S if one.status.state is JobState.CANCELLED else REFUSED_S
                if newest[one.ordinal] != ticket or now - one.cancelled_at > patience:
                    self._tickets.drop(ticket)

    def _make(self) -> None:
        self._applied.check(jobs=self.options.standing is not None)
        with self._lock:
            all_of_them = [one for _, one in self._tickets]
            active = self._tickets.active()
            count = max(one.ordinal + 1 for one in all_of_them)
            specs = {one.spec.name: one.spec for one in all_of_them}
            self._tickets.objects = True
            if not all(one.applied for one in active):
                self._tickets.write()
        files = bundle.pack(self.options.folder, specs.values())
        if self._applied.update(self._objects(count, files)):
            log.info("%s: told the cluster of %d nodes", self.place.name, count)
        with self._lock:
            for one in active:
                one.applied = True

    def _objects(self, count: int, files: Mapping[str, bytes]) -> list[Manifest]:
        return manifests(self.options, self.place, count, files, reached(self._door()))

    def _door(self) -> str:
        return read_door(self.options.folder / bundle.DOOR)

    def _replace(self) -> None:
        for one in self._tickets.active():
            if one.replaces:
                self.api.delete("Pod", self._pod(one), uid=one.replaces)
                one.replaces = ""

    def _pod(self, one: Ticket) -> str:
        return f"{self.place.name}-{one.ordinal}"

    def _remove(self) -> None:
        # scaled to nothing: pods hand in, then all of it goes
        if self._pods.now():
            self._applied.update([each for each in self._objects(0, {}) if each["kind"] == "StatefulSet"])
        elif self._pods.seen:
            self._applied.delete(self._objects(0, {}))
            with self._lock:
                self._tickets.objects = False
                self._tickets.write()

    def _hear(self, error: ClusterError, refusing: Collection[int]) -> None:
        self.trouble = str(error)
        if error.status in refusing:
            with self._lock:
                for one in self._tickets.active():
                    if one.life is None:
                        one.status = JobStatus(JobState.FAILED, str(error), refused=True)

    def _read(self) -> None:
        seen = self._pods.now(), WALL.now(), self._pods.ends()
        if self._pods.seen and self._reader.read(self._tickets.active(), *seen):
            self._applied.forget()  # somebody else may have deleted what makes them


def _ordinal(name: str) -> int:
    return int(name.rpartition("-")[2])
