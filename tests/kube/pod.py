"""The kubelet's side of one pod: volumes, containers in order, an orderly end, and the pod's status."""

import shutil
import time
from pathlib import Path
from typing import Any

from kube import events, sandbox
from kube.container import Container
from kube.deletion import set_condition
from kube.store import Object, now, seconds
from kube.volumes import MountError, Volumes


class PodWorker:
    """Lives as long as its pod is bound to a node of the kubelet."""

    def __init__(self, kubelet: Any, pod: Object, ip: str):
        self.kubelet, self.store, self.object, self.ip = kubelet, kubelet.store, pod, ip
        self.folder: Path = kubelet.folder / "pods" / pod["metadata"]["uid"]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.volumes = Volumes(
            self.store, self.folder, kubelet.folder, kubelet.ca, lambda p: kubelet.token(p)
        )
        spec = pod["spec"]
        self.has_init = bool(spec.get("initContainers"))
        self.inits = [Container(self, c, init=True) for c in spec.get("initContainers", [])]
        self.containers = [Container(self, c) for c in spec["containers"]]
        self.mounted, self.ending, self.failed = False, False, {}
        self._kill_at = float("inf")
        self._next_sync = 0.0
        self.start_time = now()

    def event(self, reason: str, message: str, warning: bool = False) -> None:
        """Say something about the pod."""
        events.record(self.store, self.object, reason, message, warning=warning)

    def log_folder(self, container: str) -> Path:
        """Where a container's logs lie."""
        return self.folder / "logs" / container

    def image_env(self) -> dict[str, str]:
        """What every container finds."""
        pod = self.object
        return {
            "PATH": sandbox.path_variable(),
            "HOSTNAME": pod["spec"].get("hostname") or pod["metadata"]["name"],
            "HOME": "/root",
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": self.kubelet.port,
            "KUBERNETES_SERVICE_PORT_HTTPS": self.kubelet.port,
        } | self.kubelet.knobs.image_env

    def files(self) -> dict[str, Path]:
        """What a kubelet writes into /etc."""
        name = self.object["spec"].get("hostname") or self.object["metadata"]["name"]
        hosts, hostname = self.folder / "hosts", self.folder / "hostname"
        hosts.write_text(f"127.0.0.1\tlocalhost\n{self.ip}\t{name}\n")
        hostname.write_text(f"{name}\n")
        return {"/etc/hosts": hosts, "/etc/hostname": hostname}

    def tick(self, pod: Object) -> None:
        """One turn with the newest object."""
        # containers are told the address before the server is
        self.object = pod | {"status": pod["status"] | {"podIP": self.ip, "hostIP": "127.0.0.1"}}
        if "deletionTimestamp" in pod["metadata"]:
            self.end(pod["metadata"]["deletionGracePeriodSeconds"])
        limit = pod["spec"].get("activeDeadlineSeconds")
        if limit and not self.ending and time.time() > seconds(self.start_time) + limit:
            self.fail("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
        if time.monotonic() > self._kill_at:
            for container in self.all():
                if container.process is not None:
                    container.process.kill()
        if not self.ending:
            self._mount()
        self._tick_containers()
        self._write_status()

    def all(self) -> list[Container]:
        """Init containers, too."""
        return [*self.inits, *self.containers]

    def _mount(self) -> None:
        if time.monotonic() < self._next_sync:
            return
        self._next_sync = time.monotonic() + (self.kubelet.knobs.volume_sync_s if self.mounted else 0.3)
        try:
            self.volumes.prepare(self.object)
            self.mounted = True
        except MountError as error:
            if not self.mounted:
                self.event("FailedMount", str(error), warning=True)

    def _tick_containers(self) -> None:
        over = self.object["status"].get("phase") in ("Failed", "Succeeded")
        may = self.mounted and not self.ending and not over
        for container in self.inits:
            container.tick(may)
            may = may and container.exit_code == 0
        for container in self.containers:
            container.tick(may)

    def end(self, grace: float) -> None:
        """SIGTERM now and SIGKILL after the grace period; a shorter one later counts."""
        self._kill_at = min(self._kill_at, time.monotonic() + grace)
        if self.ending:
            return
        self.ending = True
        for container in self.all():
            if container.process is not None:
                self.event("Killing", f"Stopping container {container.name}")
                self.stop_container(container, grace)

    def stop_container(self, container: Container, grace: float) -> None:
        """The hook before, if any, and then SIGTERM."""
        hook = container.spec.get("lifecycle", {}).get("preStop", {}).get("exec")
        process = container.process
        kill_at = time.monotonic() + grace
        if process is None:
            return

        def run() -> None:
            if hook:
                container.execute(hook["command"], grace)
            process.signal(15)
            while process.exit_code() is None and time.monotonic() < kill_at and not self.kubelet.stopping:
                time.sleep(0.05)
            process.kill()

        if hook or not self.ending:
            self.kubelet.pool.submit(run)
        else:
            container.stop()

    def fail(self, reason: str, message: str) -> None:
        """End the containers; the pod stays as Failed, as after an eviction by its node."""
        self.failed = {"reason": reason, "message": message}
        self.end(self.object["spec"]["terminationGracePeriodSeconds"] if reason == "DeadlineExceeded" else 0)

    @property
    def stopped(self) -> bool:
        """Whether no process is left."""
        return all(c.process is None for c in self.all())

    def destroy(self) -> None:
        """End everything at once, without a word to the server."""
        for container in self.all():
            if container.process is not None:
                container.process.reap()
                container.process = None

    def clean(self) -> None:
        """Remove the folder; claims stay."""
        self.destroy()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _phase(self) -> str:
        if self.failed and self.stopped:
            return "Failed"
        codes = [c.exit_code for c in self.containers]
        policy = self.object["spec"]["restartPolicy"]
        if policy == "Never" and any(c.exit_code for c in self.inits):
            return "Failed"
        if any(c.exit_code != 0 for c in self.inits):
            return "Pending"
        if all("waiting" in c.state and not c.last for c in self.containers):
            return "Pending"
        if all(code is not None for code in codes) and (policy != "Always" or self.ending):
            return "Failed" if any(codes) else "Succeeded"
        return (
            "Running" if not any("waiting" in c.state and not c.last for c in self.containers) else "Pending"
        )

    def _write_status(self) -> None:
        phase, initialized = self._phase(), all(c.exit_code == 0 for c in self.inits)
        ready = all(c.ready for c in self.containers) and not self.failed and phase == "Running"
        why = "" if ready else "PodCompleted" if phase == "Succeeded" else "ContainersNotReady"
        said = "" if ready or phase == "Succeeded" else _unready(self.containers)

        def write(pod: Object) -> None:
            status = pod["status"]
            status |= {"phase": phase, "hostIP": "127.0.0.1", "podIP": self.ip, "startTime": self.start_time}
            status |= {"hostIPs": [{"ip": "127.0.0.1"}], "podIPs": [{"ip": self.ip}]} | self.failed
            if self.inits:
                status["initContainerStatuses"] = [c.status() for c in self.inits]
            status["containerStatuses"] = [c.status() for c in self.containers]
            set_condition(pod, "PodReadyToStartContainers", self.mounted and not self.ending)
            set_condition(pod, "Initialized", initialized, "" if initialized else "ContainersNotInitialized")
            set_condition(pod, "Ready", ready, why, said)
            set_condition(pod, "ContainersReady", ready, why, said)

        updated = self.store.update("pods", self.object, write)
        if (
            updated is not None
            and self.ending
            and self.stopped
            and "deletionTimestamp" in updated["metadata"]
        ):
            self.store.remove("pods", updated)


def _unready(containers: list[Container]) -> str:
    return f"containers with unready status: [{' '.join(c.name for c in containers if not c.ready)}]"
