"""Sends objects to a cluster, and only those that differ from what was sent last."""

import hashlib
import json
import threading
from collections.abc import Iterable
from contextlib import suppress

from ...clock import WALL
from ...errors import LaunchError
from .api import Api
from .connect import ClusterError
from .permissions import lacking
from .place import Manifest, Place
from .state import short

ORDER = (
    *("StatefulSet", "Deployment", "PodDisruptionBudget", "NetworkPolicy"),
    *("Service", "Secret", "ConfigMap", "RoleBinding", "Role", "ServiceAccount"),
)
"""In which they are deleted: what makes pods before what pods need."""
REPEAT_S = 60.0


class Applied:
    """What a cluster was told last.

    Parameters
    ----------
    api : Api
        Of the objects' namespace.
    place : Place
        Whose they are.
    """

    def __init__(self, api: Api, place: Place) -> None:
        self._api, self._place = api, place
        self._permitted, self._lock = False, threading.Lock()
        self._repeat_at = WALL.now() + REPEAT_S
        self._sent: dict[tuple[str, str], str] = {}

    def check(self, *, jobs: bool = False) -> None:
        """Ask, once, whether we may do all that will be needed: ClusterError with what we may not."""
        # before anything is made: who may not delete would learn it at `down`
        with self._lock:
            if self._permitted:
                return
            rules, complete = self._api.rules()
            if complete and (lacks := list(lacking(rules, jobs=jobs))):
                words = f"not permitted in namespace {self._api.namespace}: {', '.join(lacks)}"
                raise ClusterError(f"{words}; see the Role in the README", 403)
            self._permitted = True

    def foresee(self, *, jobs: bool) -> None:
        """Ask already, in the background: importing the client and connecting take seconds."""

        def ask() -> None:
            with suppress(LaunchError):  # who needs it asks again, and is told
                self.check(jobs=jobs)

        threading.Thread(target=ask, name=f"{self._place.name} ahead", daemon=True).start()

    def update(self, objects: Iterable[Manifest]) -> int:
        """Apply what is new or differs, and all of it once a minute; how many that were."""
        if WALL.now() > self._repeat_at:  # somebody else may have changed or deleted some of it
            self._repeat_at = WALL.now() + REPEAT_S
            self.forget()
        count = 0
        for each in objects:
            key = each["kind"], each["metadata"]["name"]
            digest = hashlib.sha256(json.dumps(each, sort_keys=True).encode()).hexdigest()
            if self._sent.get(key) != digest:
                self._api.apply(each)
                self._sent[key] = digest
                count += 1
        return count

    def forget(self) -> None:
        """Take nothing for granted: the next update sends all."""
        self._sent.clear()

    def delete(self, objects: Iterable[Manifest]) -> None:
        """Delete them, in the right order; what is gone already is fine."""
        for each in sorted(objects, key=lambda one: ORDER.index(one["kind"])):
            self._api.delete(each["kind"], each["metadata"]["name"])
        self.forget()

    def delete_at_once(self, grace_s: int) -> None:
        """Delete the StatefulSet, and its pods with less patience than they were made with."""
        self._api.delete("StatefulSet", self._place.name, orphan=True)
        self._api.delete_all("Pod", self._place.selector, grace_s)

    def why_no_pod(self) -> str:
        """What the cluster says where it makes no pod, such as a quota; empty where it says nothing."""
        fields = f"involvedObject.name={self._place.name},reason=FailedCreate"
        try:
            found = self._api.list("Event", fields=fields)["items"]
        except ClusterError as error:
            return f"no pod was made; why is not known: {error}"
        newest = sorted(found, key=lambda one: str(one.get("lastTimestamp") or ""))[-1:]
        return short(str(newest[0].get("message", ""))) if newest else ""
