"""What containers wrote: the newest run or the one before, whole, the end, or as it grows."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kube.errors import bad_request
from kube.kubelet import Kubelet
from kube.store import Object


class Logs:
    """Reads the logs of a kubelet's pods; lines have no times."""

    def __init__(self, kubelet: Kubelet):
        self.kubelet = kubelet

    def read(self, pod: Object, query: dict[str, str]) -> bytes:
        """The answer to ``/log``."""
        data = self._path(pod, query).read_bytes()
        if tail := query.get("tailLines"):
            lines = data.splitlines(keepends=True)
            data = b"".join(lines[len(lines) - min(int(tail), len(lines)) :])
        limit = query.get("limitBytes")
        return data[: int(limit)] if limit else data

    def follow(self, pod: Object, query: dict[str, str], alive: Callable[[], bool]) -> Iterator[bytes]:
        """The log, until its container ends."""
        path, name = self._path(pod, query), self._name(pod, query)
        if tail := self.read(pod, query):
            yield tail
        place = path.stat().st_size
        while alive():
            worker = self.kubelet.workers.get(pod["metadata"]["uid"])
            runs = worker and any(c.name == name and c.log == path and c.running for c in worker.all())
            with open(path, "rb") as file:
                file.seek(place)
                more = file.read()
            if more:
                place += len(more)
                yield more
            elif not runs:
                return
            time.sleep(0.1)

    def _name(self, pod: Object, query: dict[str, str]) -> str:
        spec, asked = pod["spec"], query.get("container")
        names = [c["name"] for c in spec["containers"]]
        inits = [c["name"] for c in spec.get("initContainers", [])]
        who = pod["metadata"]["name"]
        if not asked and len(names) > 1:
            raise bad_request(
                f"a container name must be specified for pod {who}, choose one of: [{' '.join(names)}]"
            )
        if asked and asked not in names + inits:
            raise bad_request(f"container {asked} is not valid for pod {who}")
        return asked or names[0]

    def _path(self, pod: Object, query: dict[str, str]) -> Path:
        name, who = self._name(pod, query), pod["metadata"]["name"]
        worker = self.kubelet.workers.get(pod["metadata"]["uid"])
        container: Any = worker and next(c for c in worker.all() if c.name == name)
        if query.get("previous") in ("true", "1", "True"):
            before = container and container.log.parent / f"{container.restarts - 1}.log"
            if not before or not before.exists():
                raise bad_request(f'previous terminated container "{name}" in pod "{who}" not found')
            return before
        if not container or not container.log.parent.exists():
            reason = container.state.get("waiting", {}).get("reason", "") if container else ""
            said = f'container "{name}" in pod "{who}" is waiting to start: {reason or "ContainerCreating"}'
            raise bad_request(said)
        return sorted(container.log.parent.glob("*.log"), key=lambda p: int(p.stem))[-1]
