"""What the start of a site on Kubernetes costs, beside `kubectl apply -f -` of the same objects.

    uv run python benchmarks/kubernetes.py [--nodes 200] [--repeat 3] [--kubeconfig FILE] [--image IMAGE]

Without ``--kubeconfig`` the stand-in of ``tests/kube`` is the cluster, in a process of its own: it tells
what it was asked, and pods of the default image run nothing. With one, its user must be allowed to make
namespaces.
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import yaml

sys.path.pop(0)  # this folder: its `kubernetes` would hide the package
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from flower_hpc.launchers import JobState, KubernetesLauncher, KubernetesOptions, bundle
from flower_hpc.launchers.k8s.api import Api
from flower_hpc.launchers.k8s.manifests import manifests
from flower_hpc.launchers.k8s.reach import reached
from kube.cluster import KubernetesCluster
from kube.pods import FAKE, Site

PATIENCE_S = 120
DOOR = "tcp:10.0.0.1:9092"


class Noted(Api):
    """Knows when the last object was applied."""

    applied_at = 0.0

    def apply(self, manifest, *, dry_run=False):
        """The same, and when it was done."""
        found = super().apply(manifest, dry_run=dry_run)
        self.applied_at = time.monotonic()
        return found


class StandIn:
    """The stand-in for a cluster, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.kubeconfig = Path(self._process.stdout.readline().strip())

    def asked(self) -> dict[str, int]:
        """Requests by verb since the last time; what is about an API and no object is ``discovery``."""
        self._process.stdin.write("asked\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        self._process.stdin.close()
        self._process.wait(60)


def serve(folder: Path) -> None:
    """Be the stand-in until standard input ends."""
    with KubernetesCluster(folder) as cluster:
        print(cluster.kubeconfig, flush=True)
        for _ in sys.stdin:
            cluster.faults.drop_watches()  # a watch stands in the log when it ends
            time.sleep(0.5)
            print(json.dumps(Counter(one.verb or "discovery" for one in cluster.requests.find())), flush=True)
            cluster.requests.clear()


@contextmanager
def site_on(kubeconfig: Path, nodes: int) -> Iterator[Site]:
    """What is needed for a site, and a namespace for it."""
    name = f"fl-bench-{uuid.uuid4().hex[:8]}"
    kubectl(kubeconfig, "create", "namespace", name)
    try:
        with tempfile.TemporaryDirectory() as folder:
            kube = SimpleNamespace(namespace=name, kubeconfig=kubeconfig)
            made = Site(kube, Path(folder) / "site", nodes=nodes)
            (made.folder / "door").write_text(DOOR)
            yield made
    finally:
        kubectl(kubeconfig, "delete", "namespace", name, "--wait=true")


def ours(site: Site, nodes: int, image: str) -> tuple[float, float]:
    """Seconds from the first submit until all objects are applied, and until all nodes run."""
    options = options_of(site, image)
    api = Noted(options.kubeconfig, None, options.namespace)
    memory = site.folder / "memory.json"
    launcher = KubernetesLauncher(options, site.place, memory=memory, api=lambda asked: api)
    begun = time.monotonic()
    tickets = [launcher.submit(site.spec(index)) for index in range(nodes)]
    try:
        while not all(launcher.status(one).state is JobState.RUNNING for one in tickets):
            if time.monotonic() - begun > PATIENCE_S:
                raise TimeoutError(launcher.trouble or str(launcher.status(tickets[-1])))
            time.sleep(0.05)
        return api.applied_at - begun, time.monotonic() - begun
    finally:
        launcher.close()


def theirs(site: Site, nodes: int, image: str) -> tuple[float, float]:
    """The same by `kubectl apply` of the same objects, and `kubectl wait`."""
    options = options_of(site, image)
    files = bundle.pack(site.folder, [site.spec(index) for index in range(nodes)])
    text = yaml.safe_dump_all(manifests(options, site.place, nodes, files, reached(DOOR)))
    begun = time.monotonic()
    kubectl(site.kube.kubeconfig, "apply", "-f", "-", text=text)
    applied = time.monotonic() - begun
    wait = ("wait", f"--for=jsonpath={{.status.readyReplicas}}={nodes}", f"--timeout={PATIENCE_S}s")
    kubectl(site.kube.kubeconfig, *wait, "-n", site.kube.namespace, f"statefulset/{site.place.name}")
    return applied, time.monotonic() - begun


def options_of(site: Site, image: str) -> KubernetesOptions:
    """The same for both."""
    where = {"kubeconfig": site.kube.kubeconfig, "namespace": site.kube.namespace}
    return KubernetesOptions(folder=site.folder, image=image, grace_s=5, **where)


def kubectl(kubeconfig: Path, *words: str, text: str | None = None) -> None:
    """Run it; what it says is shown where it fails."""
    command = ["kubectl", "--kubeconfig", str(kubeconfig), *words]
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")


def start(kubeconfig: Path, cluster: StandIn | None, asked: argparse.Namespace) -> None:
    """Both in turn, and the table."""
    times: dict[str, list[tuple[float, float]]] = {"flower-hpc": [], "kubectl": []}
    calls: dict[str, dict[str, int]] = {}
    for _ in range(asked.repeat):
        for name, way in (("flower-hpc", ours), ("kubectl", theirs)):
            with site_on(kubeconfig, asked.nodes) as site:
                if cluster is not None:
                    cluster.asked()
                times[name].append(way(site, asked.nodes, asked.image))
                if cluster is not None:
                    calls[name] = cluster.asked()
    print(f"{asked.nodes} nodes, median of {asked.repeat}: seconds from the first word until")
    print(f"{'':12} {'applied':>8} {'all run':>8}  calls by verb (the last time)")
    middle = {name: [median(each) for each in zip(*found, strict=True)] for name, found in times.items()}
    for name, (applied, run) in middle.items():
        said = ", ".join(f"{verb} {count}" for verb, count in sorted(calls.get(name, {}).items()))
        print(f"{name:12} {applied:8.2f} {run:8.2f}  {said}")
    ratios = [us / them for us, them in zip(middle["flower-hpc"], middle["kubectl"], strict=True)]
    print(f"{'ratio':12} {ratios[0]:8.2f} {ratios[1]:8.2f}")
    first = " and ".join(f"{seconds:.2f}" for seconds in times["flower-hpc"][0])
    print(f"the first of flower-hpc, which imports the Python client, once in a controller's life: {first}")


def main() -> None:
    """Bring up what is needed, measure, say how."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--kubeconfig", type=Path, help="of a real cluster; default: the stand-in")
    parser.add_argument("--image", default=FAKE, help="default: one of which the stand-in runs nothing")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve is not None:
        return serve(asked.serve)
    logging.disable()  # of watches that are dropped to be counted
    with tempfile.TemporaryDirectory() as folder:
        cluster = None if asked.kubeconfig else StandIn(Path(folder))
        try:
            start(asked.kubeconfig or cluster.kubeconfig, cluster, asked)
        finally:
            if cluster is not None:
                cluster.close()
    return print(f"command: python {' '.join(sys.argv)}")


if __name__ == "__main__":
    main()
