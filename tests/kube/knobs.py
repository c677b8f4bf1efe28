"""What can be chosen about a cluster."""

from dataclasses import dataclass, field
from pathlib import PurePosixPath

from kube.store import Object, now

FAKE = "flower-hpc/fake-node"
NODE_INFO = dict.fromkeys(("bootID", "machineID", "systemUUID", "kubeProxyVersion"), "") | {
    "architecture": "amd64",
    "containerRuntimeVersion": "containerd://2.0.0",
    "kernelVersion": "6.1.0",
    "kubeletVersion": "v1.36.2",
    "operatingSystem": "linux",
    "osImage": "a stand-in",
}


@dataclass(frozen=True)
class Node:
    """What a node has; ``gpus`` are counted and handed out, and need not exist."""

    name: str
    cpu: str = "8"
    memory: str = "16Gi"
    gpus: int = 0
    pods: int = 500
    labels: dict[str, str] = field(default_factory=dict)
    taints: list[Object] = field(default_factory=list)

    def manifest(self) -> Object:
        """The object."""
        amounts = {
            "cpu": self.cpu,
            "memory": self.memory,
            "pods": str(self.pods),
            "ephemeral-storage": "100Gi",
        }
        amounts |= {"nvidia.com/gpu": str(self.gpus)} if self.gpus else {}
        labels = {
            "kubernetes.io/hostname": self.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
        }
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastTransitionTime": now()}
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name, "labels": labels | self.labels},
            "spec": {"taints": self.taints} if self.taints else {},
            "status": {
                "capacity": amounts,
                "allocatable": amounts,
                "conditions": [ready],
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "nodeInfo": NODE_INFO,
            },
        }


@dataclass(frozen=True)
class Knobs:
    """What can be chosen about a cluster.

    Parameters
    ----------
    nodes
        See `Node`; two ordinary ones and one with two GPUs, unless said otherwise.
    images
        Beginnings of names of images that exist; what runs in them is this machine's Python environment.
        ``flower-hpc/fake-node`` runs nothing: its pods are Running and Ready, for tests of many of them.
    backoff_s
        The first wait before a crashed container is started again (a real kubelet: 10); it doubles.
    job_backoff_s
        The same for the pods of a job (really 10).
    start_delay_s
        How long a container takes to start, by the beginning of its image's name.
    node_grace_s
        How long a node may be silent before it counts as lost (really about 45).
    volume_sync_s
        How often changed secrets reach the volumes of running pods (really up to a minute).
    image_env
        Variables that every image sets.
    """

    nodes: tuple[Node, ...] = (Node("node-1"), Node("node-2"), Node("gpu-1", gpus=2, labels={"gpu": "yes"}))
    images: tuple[str, ...] = ("flower-hpc",)
    backoff_s: float = 1.0
    job_backoff_s: float = 1.0
    start_delay_s: dict[str, float] = field(default_factory=dict)
    node_grace_s: float = 1.0
    volume_sync_s: float = 1.0
    image_env: dict[str, str] = field(default_factory=dict)

    def knows(self, image: str) -> bool:
        """Whether there is such an image."""
        name = image.removeprefix("docker.io/").removeprefix("localhost/")
        return any(name.startswith(start) for start in self.images)

    def delay_s(self, image: str) -> float:
        """How long its containers take to start."""
        return next((s for start, s in self.start_delay_s.items() if image.startswith(start)), 0.0)


def pretends(image: str) -> bool:
    """Whether nothing runs in containers of this image."""
    return str(PurePosixPath(image)).partition(":")[0].endswith(FAKE)
