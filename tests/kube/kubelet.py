"""The kubelets of all nodes in one object: a worker for each pod that is bound to a node that lives."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kube.knobs import Knobs
from kube.pod import PodWorker
from kube.store import Object, Store

OVER = ("Failed", "Succeeded")


class Kubelet:
    """Starts and ends containers; all in the thread of the `Manager`, probes in others."""

    def __init__(self, store: Store, knobs: Knobs, folder: Path, token: Callable[[Object], str]):
        self.store, self.knobs, self.folder, self.token = store, knobs, folder, token
        self.ca, self.port, self.stopping = b"", "", False
        self.pool = ThreadPoolExecutor(16, "probes")
        self.workers: dict[str, PodWorker] = {}
        self.lost: dict[str, float] = {}
        self._tasks: list[Callable[[], Any]] = []
        self._count = random.randrange(200 * 62500)  # clusters beside this one have others

    def soon(self, task: Callable[[], Any]) -> None:
        """Do something in the kubelet's own thread."""
        self._tasks.append(task)

    def sync(self) -> None:
        """One turn."""
        while self._tasks:
            self._tasks.pop(0)()
        bound = {p["metadata"]["uid"]: p for p in self.store.list("pods") if p["spec"].get("nodeName")}
        for uid in [uid for uid in self.workers if uid not in bound]:
            self.workers.pop(uid).clean()
        for uid, pod in bound.items():
            if pod["spec"]["nodeName"] in self.lost:
                continue
            if uid not in self.workers:
                self.workers[uid] = PodWorker(self, pod, self._address(pod))
            worker = self.workers[uid]
            if (
                pod["status"].get("phase") in OVER
                and worker.stopped
                and "deletionTimestamp" not in pod["metadata"]
            ):
                continue
            worker.tick(pod)

    def _address(self, pod: Object) -> str:
        if pod["spec"].get("hostNetwork"):
            return "127.0.0.1"
        self._count += 1
        return f"127.{1 + self._count // 62500}.{self._count // 250 % 250}.{self._count % 250 + 1}"

    def forget_node(self, node: str) -> None:
        """Let all processes of a node vanish; the kubelet says nothing any more."""
        for worker in self.workers.values():
            if worker.object["spec"]["nodeName"] == node:
                worker.destroy()

    def recall_node(self, node: str) -> None:
        """After a restart of the node: its containers have all ended."""
        for uid, worker in list(self.workers.items()):
            if worker.object["spec"]["nodeName"] == node:
                fresh = PodWorker(self, worker.object, worker.ip)
                for old, new in zip(worker.all(), fresh.all(), strict=True):
                    new.restarts = old.restarts + 1
                self.workers[uid] = fresh

    def stop(self) -> None:
        """End every process."""
        self.stopping = True
        for worker in self.workers.values():
            worker.destroy()
        self.pool.shutdown(wait=True, cancel_futures=True)
