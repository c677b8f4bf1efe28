"""A site's pods as they are now: one list, then one watch, resumed wherever it breaks."""

import logging
import threading

from ...clock import WALL
from ..base import JobStatus
from . import state
from .api import AGAIN, Api
from .connect import ClusterError
from .place import Manifest

log = logging.getLogger(__name__)

FIRST_S, LONGEST_S = 0.5, 30.0
GONE = 410
MOST_ENDS = 2000


class Pods:
    """Follows the pods that a selector finds, in a thread of its own.

    Parameters
    ----------
    api : Api
        Of their namespace.
    selector : str
        Their labels.
    wake : threading.Event
        Set at each change.
    """

    def __init__(self, api: Api, selector: str, wake: threading.Event) -> None:
        self._api, self._selector, self._wake = api, selector, wake
        self._pods: dict[str, Manifest] = {}
        self._ends: dict[str, JobStatus] = {}
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self.seen = False
        """Whether a list has come."""
        self.trouble: ClusterError | None = None
        """Why nothing is heard at present; None where all is well."""

    def start(self) -> None:
        """Begin, once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"pods {self._selector}", daemon=True)
            self._thread.start()

    def now(self) -> dict[str, Manifest]:
        """By name."""
        with self._lock:
            return dict(self._pods)

    def ends(self) -> dict[str, JobStatus]:
        """Why pods, by uid, ended or were asked to leave: their successors may be seen before they are."""
        with self._lock:
            return dict(self._ends)

    def close(self) -> None:
        """End at the next word from the cluster."""
        self._over.set()

    def _work(self) -> None:
        pause, version = FIRST_S, ""
        while not self._over.is_set():
            try:
                if not version:
                    version = self._list()
                for event in self._api.watch("Pod", self._selector, version):
                    version, pause, self.trouble = self._take(event), FIRST_S, None
                    if self._over.is_set():
                        return
            except ClusterError as error:
                if error.status == GONE:  # the server has forgotten what came after our version
                    version = ""
                    continue
                self._hear(error)
                if error.status not in (0, *AGAIN):
                    version = ""
                self._over.wait(max(pause, error.after_s))
                pause = min(LONGEST_S, pause * 2)
            except Exception:  # a thread that dies would leave the site as it was for ever
                log.exception("%s: the watch failed", self._selector)
                version = ""
                self._over.wait(LONGEST_S)

    def _list(self) -> str:
        found = self._api.list("Pod", self._selector)
        with self._lock:
            self._pods = {pod["metadata"]["name"]: pod for pod in found["items"]}
        self.seen, self.trouble = True, None
        self._wake.set()
        return str(found["metadata"]["resourceVersion"])

    def _take(self, event: Manifest) -> str:
        pod = event["object"]
        name, version = pod["metadata"].get("name", ""), str(pod["metadata"]["resourceVersion"])
        if event["type"] == "BOOKMARK":
            return version
        with self._lock:
            self._note(pod)
            if event["type"] == "DELETED":
                self._pods.pop(name, None)
            else:
                self._pods[name] = pod
        self._wake.set()
        return version

    def _note(self, pod: Manifest) -> None:
        found, uid = state.read(pod), pod["metadata"]["uid"]
        if (found.ended or found.leaves_at) and uid not in self._ends:
            self._ends[uid] = found
            while len(self._ends) > MOST_ENDS:
                self._ends.pop(next(iter(self._ends)))

    def _hear(self, error: ClusterError) -> None:
        if str(error) != str(self.trouble):
            log.warning("%s: %s", self._selector, error)
        self.trouble = error
        self._wake.set()


def wait_for(pods: Pods, seconds: float) -> bool:
    """Until none is left; whether that came about in time."""
    until = WALL.now() + seconds
    while pods.now() or not pods.seen:
        if WALL.now() > until:
            return False
        WALL.sleep(0.1)
    return True
