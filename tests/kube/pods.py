"""A site's launcher and what it starts, for the launcher's tests."""

from pathlib import Path

from flower_hpc.launchers import JobSpec, KubernetesLauncher, KubernetesOptions
from flower_hpc.launchers.bundle import HOME, ROOT
from flower_hpc.launchers.k8s.place import Place

IMAGE = "flower-hpc/test:1"
FAKE = "flower-hpc/fake-node:1"
STAYS = "import time; print('hello from', __import__('socket').gethostname(), flush=True); time.sleep(600)"


class Site:
    """A folder with what a bundle is made of, and launchers of it, which share one memory."""

    def __init__(self, kube, folder: Path, nodes: int = 3):
        self.kube, self.folder = kube, folder
        (folder / "keys").mkdir(parents=True)
        (folder / "ca.pem").write_text("a CA")
        (folder / "door").write_text("tcp:127.0.0.1:9")
        for index in range(nodes):
            (folder / "keys" / f"cloud-{index}").write_text(f"key {index}")
        self.place = Place("fed", "cloud", f"fed-cloud-{kube.namespace[-6:]}")
        self.launchers: list[KubernetesLauncher] = []

    def launcher(self, **options) -> KubernetesLauncher:
        """Another one, as after a controller's death."""
        asked = {"image": IMAGE, "grace_s": 5, "kubeconfig": self.kube.kubeconfig} | options
        asked = {"namespace": self.kube.namespace} | asked
        made = KubernetesLauncher(
            KubernetesOptions(folder=self.folder, **asked), self.place, memory=self.folder / "memory.json"
        )
        self.launchers.append(made)
        return made

    def spec(self, index: int = 0, code: str = STAYS, fingerprint: str = "a", **env: str) -> JobSpec:
        """A node, which is any program here."""
        name = f"cloud-{index}"
        return JobSpec(
            name=name,
            command=("python", "-c", code),
            cwd=HOME / "nodes" / name,
            log=HOME / "logs" / f"{name}.log",
            door=ROOT / "door",
            env=env,
            fingerprint=fingerprint,
        )

    def pod(self, index: int = 0) -> str:
        """The name of a node's pod."""
        return f"{self.place.name}-{index}"

    def pods(self) -> dict[str, str]:
        """The uids of the site's pods that nobody has asked to leave."""
        found = self.kube.core.list_namespaced_pod(self.kube.namespace, label_selector=self.place.selector)
        return {
            one.metadata.name: one.metadata.uid
            for one in found.items
            if one.metadata.deletion_timestamp is None
        }

    def left(self) -> list[str]:
        """What of the site is still in the cluster."""
        from kubernetes import client

        kube, chosen = self.kube, {"label_selector": self.place.selector}
        lists = (
            kube.core.list_namespaced_pod,
            kube.core.list_namespaced_secret,
            kube.core.list_namespaced_service_account,
            kube.apps.list_namespaced_stateful_set,
            client.NetworkingV1Api(kube.api_client).list_namespaced_network_policy,
            client.PolicyV1Api(kube.api_client).list_namespaced_pod_disruption_budget,
        )
        return [one.metadata.name for ask in lists for one in ask(kube.namespace, **chosen).items]

    def until(self, condition, seconds: float = 30):
        """Wait until ``condition()`` holds."""
        return self.kube.wait(condition, seconds)

    def running(self, launcher, *tickets: str) -> None:
        """Wait until all of them run."""
        self.until(lambda: all(launcher.status(one).state == "running" for one in tickets))

    def close(self) -> None:
        """Take all of it down."""
        for one in self.launchers:
            one.close()
