"""A Kubernetes cluster of virtual nodes on this machine, for tests and for trials by hand.

``python tests/kube/cluster.py up --dir D`` leaves one running for a developer; ``... down --dir D`` ends it.
"""

import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # run as a command, `kube` would not be found
from kube import certificates, sandbox
from kube.api import Api
from kube.deletion import condition, disrupt, set_condition
from kube.deployments import Deployments
from kube.housekeeping import UNREACHABLE, Housekeeping
from kube.jobs import Jobs
from kube.knobs import Knobs, Node
from kube.kubelet import Kubelet
from kube.logs import Logs
from kube.manager import Manager
from kube.rbac import ADMIN, Tokens
from kube.resources import RESOURCES
from kube.routes import Routes
from kube.scheduler import Scheduler
from kube.server import Server
from kube.statefulsets import StatefulSets
from kube.store import Object, Store, copy


class KubernetesError(RuntimeError):
    """The cluster cannot be, or did not become what was waited for."""


class KubernetesCluster:
    """A server with its controllers and nodes, in threads of this process.

    Parameters
    ----------
    folder
        Where the cluster makes its own folder ``kube``, which ``down`` removes.
    knobs
        See `Knobs`.
    """

    real = False  # whether it is a real cluster

    def __init__(self, folder: Path | str, **knobs: Any):
        self.knobs, self.folder = Knobs(**knobs), Path(folder).absolute() / "kube"
        self.kubeconfig = self.folder / "kubeconfig"
        self.store, self.tokens = Store(), Tokens()
        self.api = Api(self.store)
        self._kubelet = Kubelet(self.store, self.knobs, self.folder, self._token_of_pod)
        self.routes = Routes(self.api, self.tokens, Logs(self._kubelet))
        self.faults, self.requests = self.routes.faults, self.routes.requests
        self.api.on_create["namespaces"] = self._furnish
        lost = self._kubelet.lost
        house = Housekeeping(self.api, self.folder, lost, self.knobs.node_grace_s)
        jobs = Jobs(self.api, self.knobs.job_backoff_s)
        parts = [
            Deployments(self.api),
            StatefulSets(self.api),
            jobs,
            Scheduler(self.store),
            self._kubelet,
            house,
        ]
        self._manager = Manager(self.store, parts)

    def __enter__(self) -> "KubernetesCluster":
        self.up()
        return self

    def __exit__(self, *error: object) -> None:
        self.down()

    @property
    def errors(self) -> list[str]:
        """Tracebacks of the stand-in's own mistakes."""
        return self._manager.errors

    def up(self) -> None:
        """Start to serve."""
        if why := sandbox.why_not():
            raise KubernetesError(why)
        try:
            self.folder.mkdir(parents=True)
        except FileExistsError:
            raise KubernetesError(
                f"there is a cluster already, or what is left of one: {self.folder}"
            ) from None
        certificates.write(self.folder)
        self.server = Server(self.routes, self.folder)
        self._kubelet.ca = (self.folder / "ca.crt").read_bytes()
        self._kubelet.port = str(self.server.server_address[1])
        for node in self.knobs.nodes:
            self.add_node(node)
        for name in ("default", "kube-system"):
            self.api.create(RESOURCES["namespaces"], "", {"metadata": {"name": name}})
        self.write_kubeconfig(self.kubeconfig, self.tokens.issue(ADMIN))
        self.server.start()
        self._manager.start()

    def down(self) -> None:
        """End every process and connection, and remove the folder."""
        self._kubelet.stopping = True
        self._manager.stop()
        self._kubelet.stop()
        self.server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def write_kubeconfig(self, path: Path, token: str, namespace: str = "default") -> Path:
        """A kubeconfig for whoever has this token."""
        cluster = {"server": self.server.url, "certificate-authority": str(self.folder / "ca.crt")}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "stand-in", "cluster": cluster}],
            "users": [{"name": "user", "user": {"token": token}}],
            "contexts": [
                {"name": "it", "context": {"cluster": "stand-in", "user": "user", "namespace": namespace}}
            ],
            "current-context": "it",
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(config))
        return path

    def kubeconfig_of(self, namespace: str, account: str, seconds: float | None = None) -> Path:
        """A kubeconfig for a service account, with a token that may expire."""
        token = self.tokens.of_account(namespace, account, seconds)
        path = Path(tempfile.mkdtemp(dir=self.folder)) / "kubeconfig"
        return self.write_kubeconfig(path, token, namespace)

    # nodes

    def add_node(self, node: Node) -> None:
        """A new node."""
        self.store.create("nodes", node.manifest())

    def remove_node(self, name: str) -> None:
        """Take a node away: its processes, its object, and with it its pods."""
        self.kill_node(name)
        self.store.remove("nodes", self.store.get("nodes", "", name))
        self._kubelet.lost.pop(name, None)

    def cordon(self, name: str, on: bool = True) -> None:
        """Let no new pods come to a node."""
        self._node(
            name, lambda n: n["spec"].update(unschedulable=True) if on else n["spec"].pop("unschedulable", 0)
        )

    def uncordon(self, name: str) -> None:
        """Let pods come again."""
        self.cordon(name, on=False)

    def taint(self, name: str, key: str, value: str = "", effect: str = "NoSchedule") -> None:
        """Add a taint, which evicts nobody."""
        taint = {"key": key, "value": value, "effect": effect}
        self._node(name, lambda n: n["spec"].setdefault("taints", []).append(taint))

    def label_node(self, name: str, **labels: str) -> None:
        """Add labels."""
        self._node(name, lambda n: n["metadata"].setdefault("labels", {}).update(labels))

    def resize_node(self, name: str, **amounts: str) -> None:
        """Change what a node has: ``resize_node("gpu-1", **{"nvidia.com/gpu": "0"})``."""
        self._node(name, lambda n: [n["status"][k].update(amounts) for k in ("capacity", "allocatable")])

    def kill_node(self, name: str) -> None:
        """Let a node vanish as if its power went; it counts as lost after `Knobs.node_grace_s`."""
        self._kubelet.lost[name] = time.monotonic()
        self._in_kubelet(lambda: self._kubelet.forget_node(name))

    def start_node(self, name: str) -> None:
        """Bring a node back, its containers started anew."""
        self._in_kubelet(lambda: self._kubelet.recall_node(name))

        def ready(node: Object) -> None:
            node["spec"]["taints"] = [t for t in node["spec"].get("taints", []) if t["key"] != UNREACHABLE]
            set_condition(node, "Ready", True, "KubeletReady")

        self._node(name, ready)
        self._kubelet.lost.pop(name, None)

    @property
    def nodes(self) -> list[str]:
        """Their names."""
        return [node["metadata"]["name"] for node in self.store.list("nodes")]

    # pods

    def pod(self, namespace: str, name: str) -> Object:
        """A pod as it is now."""
        return self.store.get("pods", namespace, name)

    def oom(self, namespace: str, name: str, container: str = "") -> None:
        """Kill a container as the kernel does that runs out of the group's memory."""
        self._kill(namespace, name, container, "OOMKilled")

    def crash(self, namespace: str, name: str, container: str = "") -> None:
        """Kill a container, for no reason that the kubelet knows."""
        self._kill(namespace, name, container, "")

    def evict(
        self, namespace: str, name: str, message: str = "The node was low on resource: memory."
    ) -> None:
        """Let the node evict a pod under pressure: it fails at once, and stays as Failed."""
        pod = self.pod(namespace, name)
        disrupt(self.store, pod, "TerminationByKubelet", message)
        worker = self._kubelet.workers[pod["metadata"]["uid"]]

        def fail() -> None:
            worker.event("Evicted", message, warning=True)
            worker.fail("Evicted", message)

        self._in_kubelet(fail)

    def preempt(self, namespace: str, name: str) -> None:
        """Let the scheduler take a pod away for one of higher priority."""
        pod = self.pod(namespace, name)
        said = "default-scheduler: preempting to accommodate a higher priority pod"
        disrupt(self.store, pod, "PreemptionByScheduler", said)
        self.api.delete(RESOURCES["pods"], namespace, name, {})

    def pids(self, namespace: str, name: str) -> list[int]:
        """The first process of each running container, as this machine counts them."""
        worker = self._kubelet.workers[self.pod(namespace, name)["metadata"]["uid"]]
        return [c.process.pid for c in worker.containers if c.process]

    def wait(self, predicate: Callable[[], Any], seconds: float = 20) -> Any:
        """Wait until ``predicate()`` holds, and return what it said."""
        end = time.monotonic() + seconds
        while not (found := predicate()):
            if time.monotonic() > end:
                raise KubernetesError(f"not within {seconds} s:\n{self.picture()}")
            time.sleep(0.03)
        return found

    def wait_ready(self, namespace: str, *names: str, seconds: float = 20) -> None:
        """Wait until pods are ready."""

        def ready(name: str) -> bool:
            pod = self.store.find("pods", namespace, name)
            return pod is not None and (condition(pod, "Ready") or {}).get("status") == "True"

        self.wait(lambda: all(map(ready, names)), seconds)

    def picture(self) -> str:
        """Pods and events, for messages."""
        lines = []
        for pod in self.store.list("pods"):
            states = [c["state"] for c in pod["status"].get("containerStatuses", [])]
            lines.append(f"{pod['metadata']['name']} {pod['status'].get('phase')} {states}")
        lines += [f"{e['reason']}: {e['message']}" for e in self.store.list("events")[-20:]]
        return "\n".join([*lines, *self.errors])

    def _kill(self, namespace: str, name: str, container: str, reason: str) -> None:
        worker = self._kubelet.workers[self.pod(namespace, name)["metadata"]["uid"]]

        def kill() -> None:
            for one in worker.containers:
                if container in ("", one.name) and one.process:
                    one.reason = reason
                    one.process.kill()

        self._in_kubelet(kill)

    def _in_kubelet(self, task: Callable[[], Any]) -> None:
        done: list[bool] = []

        def run() -> None:
            try:
                task()
            finally:
                done.append(True)

        self._kubelet.soon(run)
        self.wait(lambda: done or not self._manager._thread.is_alive(), 20)

    def _node(self, name: str, change: Callable[[Object], Any]) -> None:
        self.store.update("nodes", self.store.get("nodes", "", name), change)

    def _token_of_pod(self, pod: Object) -> str:
        return self.tokens.of_account(pod["metadata"]["namespace"], pod["spec"]["serviceAccountName"])

    def _furnish(self, namespace: Object) -> None:
        """What a real server's controllers put into every namespace."""
        name = namespace["metadata"]["name"]
        ca = {"ca.crt": (self.folder / "ca.crt").read_text()}
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": name},
        }
        self.store.create("serviceaccounts", account)
        meta = {"name": "kube-root-ca.crt", "namespace": name}
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": ca}
        self.store.create("configmaps", copy(config))


if __name__ == "__main__":
    from kube.command import main

    with contextlib.suppress(KeyboardInterrupt):
        main()
