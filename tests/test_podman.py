"""A pod of ours in a real container: nobody's root, nothing to gain, and a SuperNode that signs on and off.

Debian's podman plays the pod that the launcher had a cluster make. What podman 4.3 cannot do is taken out
in :func:`playable`; it ignores service accounts, node selectors, tolerations and GPUs, and
a ``/dev/shm`` of memory is a folder of the disk.
"""

import base64
import json
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
import yaml

from doors import free_port, until
from kube.cluster import KubernetesCluster
from kube.sandbox import why_not
from oci import write_image

IMAGE = "localhost/flower-hpc-test:1"
REQUIRE = "FLOWER_HPC_REQUIRE_PODMAN"
pytestmark = [pytest.mark.federation, pytest.mark.timeout(400)]

CONF = """
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
infra_image = "{image}"
{runtime}
"""
PROJECT = """
[project]
name = "inside"
version = "1.0.0"
[tool.flwr.app]
publisher = "me"
[tool.flwr.app.components]
serverapp = "inside:server"
clientapp = "inside:client"
"""
APP = """
import json, os, time
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

server = ServerApp()
client = ClientApp()

@server.main()
def main(grid, context):
    while not (nodes := list(grid.get_node_ids())):
        time.sleep(0.5)
    content = RecordDict({"empty": ConfigRecord()})
    (reply,) = grid.send_and_receive([Message(content, nodes[0], "train")], timeout=60)
    with open("SEEN", "w") as file:
        json.dump(dict(reply.content["seen"]), file)

def refused(path):
    try:
        open(path, "w").close()
    except OSError as error:
        return error.strerror
    os.unlink(path)
    return ""

@client.train()
def train(message, context):
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    names = ("Uid", "Gid", "CapEff", "CapPrm", "CapBnd", "Seccomp", "NoNewPrivs")
    seen = {name: status[name].split()[0] for name in names}
    places = ("/x", "/etc/flower-hpc/x", "/app/x", "/tmp/x", "/dev/shm/x", "/var/lib/flower-hpc/x")
    seen |= {place: refused(place) for place in places}
    seen["bundle"] = sorted(n for n in os.listdir("/etc/flower-hpc") if not n.startswith("."))
    return Message(RecordDict({"seen": ConfigRecord(seen)}), reply_to=message)
"""


class Podman:
    """Podman with all that it keeps in one folder."""

    def __init__(self, folder):
        self.folder = folder
        names = ("crun", "runc")
        runtime = next((f'runtime = "{n}"' for n in names if shutil.which(n) and self._fits(n)), "")
        (folder / "containers.conf").write_text(CONF.format(image=IMAGE, runtime=runtime))

    @staticmethod
    def _fits(runtime):
        # crun does not start where both versions of cgroups are mounted
        return runtime != "crun" or not Path("/sys/fs/cgroup/unified").exists()

    def __call__(self, *arguments, check=True, timeout=90):
        command = ["podman", "--root", self.folder / "root", "--runroot", self.folder / "run", *arguments]
        env = os.environ | {"CONTAINERS_CONF": str(self.folder / "containers.conf")}
        done = subprocess.run(
            list(map(str, command)), env=env, capture_output=True, text=True, check=False, timeout=timeout
        )
        if check and done.returncode:
            raise RuntimeError(done.stderr.strip()[-500:])
        return done.stdout

    def close(self):
        """Remove containers, images and volumes."""
        self("pod", "rm", "--all", "--force", "--time", "0", check=False)
        self("system", "reset", "--force", check=False)


def cannot(why):
    (pytest.fail if os.environ.get(REQUIRE) == "1" else pytest.skip)(why)


@pytest.fixture(scope="module")
def podman():
    if not shutil.which("podman"):
        cannot("needs podman: apt-get install podman crun")
    with tempfile.TemporaryDirectory(prefix="podman-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        one = Podman(folder)
        try:
            archive = write_image(folder / "image.tar", IMAGE)
            try:
                one("load", "--quiet", "--input", archive)
                archive.unlink()
                one(
                    "run",
                    "--rm",
                    "--pull=never",
                    "--network=none",
                    "--entrypoint",
                    "python",
                    IMAGE,
                    "-c",
                    "0",
                )
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                cannot(f"podman cannot run containers here: {error}")
            yield one
        finally:
            one.close()


def own_address():
    """By which containers reach this machine; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("203.0.113.1", 9))
        return probe.getsockname()[0]


def playable(stateful_set, bundle):
    """The first pod of a StatefulSet, without what podman 4.3 cannot read; its Secret lies in a folder."""
    template = stateful_set["spec"]["template"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": dict(template["metadata"]),
        "spec": template["spec"],
    }
    pod = json.loads(json.dumps(pod))
    pod["metadata"]["name"] = f"{stateful_set['metadata']['name']}-0"
    (container,) = pod["spec"]["containers"]
    # it knows no status.podIP and no gRPC probes, and hands Secrets over as they are written, in base64
    container["env"] = [
        one
        for one in container["env"]
        if one.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath") != "status.podIP"
    ]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        container.pop(probe)
    for volume in pod["spec"]["volumes"]:
        if volume.pop("secret", None):
            volume["hostPath"] = {"path": str(bundle), "type": "Directory"}
    return pod


def unpack(secret, folder):
    """The files of a Secret, as a kubelet lays them out for the pod's group."""
    folder.mkdir()
    for name, data in secret["data"].items():
        (folder / name).write_bytes(base64.b64decode(data))
        (folder / name).chmod(0o444)
    return folder


def test_a_pod_signs_on_answers_from_within_its_bounds_and_signs_off(podman, shell, tmp_path):
    if why := why_not():
        cannot(why)
    with KubernetesCluster(tmp_path, nodes=()) as cluster:
        site = {
            "launcher": "kubernetes",
            "nodes": 1,
            "image": IMAGE,
            "pull_policy": "Never",
            "kubeconfig": str(cluster.kubeconfig),
            "mem": "2Gi",
            "grace_s": 20,
        }
        gateway = {"address": own_address(), "port": free_port()}
        config = {"name": "lab", "gateway": gateway, "sites": {"cloud": site}}
        (tmp_path / "federation.yaml").write_text(yaml.safe_dump(config))
        up = shell("flower-hpc", "up", "--timeout", "20", "--json")
        assert up.returncode == 0, up.stderr

        # no node of the cluster takes the pod: podman does, as the cluster was told
        (stateful_set,) = cluster.store.list("statefulsets")
        (secret,) = cluster.store.list("secrets")
        assert secret["data"].keys() == {"ca.pem", "door", "nodes.json.gz", "cloud-0.key"}
        pod = playable(stateful_set, unpack(secret, podman.folder / "bundle"))
        (tmp_path / "pod.yaml").write_text(yaml.safe_dump(pod))
        podman("kube", "play", tmp_path / "pod.yaml")
        name = pod["metadata"]["name"]

        def states():
            listed = shell("flower-hpc", "flwr", "--", "supernode", "list", "lab", "--format", "json")
            return [one["status"] for one in json.loads(listed.stdout)["nodes"]]

        def said():
            return podman("logs", f"{name}-supernode", check=False)

        try:
            until(lambda: states() == ["online"], 90)
        except AssertionError:
            pytest.fail(f"it does not sign on: {states()}\n{said()}")

        (tmp_path / "app").mkdir()
        (tmp_path / "app/pyproject.toml").write_text(PROJECT)
        (tmp_path / "app/inside.py").write_text(APP.replace("SEEN", str(tmp_path / "seen.json")))
        run = shell("flower-hpc", "run", tmp_path / "app")
        assert run.returncode == 0, run.stderr + said()
        seen = json.loads((tmp_path / "seen.json").read_text())

        # as a kubelet: the pod's network goes last, which `podman pod stop` takes away at once
        podman("stop", "--time", "20", f"{name}-supernode")
        code = podman("inspect", "--format", "{{.State.ExitCode}}", f"{name}-supernode").strip()
        assert (code, "asked to leave by SIGTERM" in said()) == ("0", True), said()
        # it has signed off: one that is only silent counts as online for a minute
        assert "online" not in states(), said()
        assert shell("flower-hpc", "down").returncode == 0

    assert (seen["Uid"], seen["Gid"]) == ("1000", "1000")
    assert {seen[name] for name in ("CapEff", "CapPrm", "CapBnd")} == {"0" * 16}
    assert (seen["Seccomp"], seen["NoNewPrivs"]) == ("2", "1")
    assert {seen[name] for name in ("/x", "/etc/flower-hpc/x", "/app/x")} == {"Read-only file system"}
    assert {seen[name] for name in ("/tmp/x", "/dev/shm/x", "/var/lib/flower-hpc/x")} == {""}
    assert seen["bundle"] == sorted(secret["data"])
    assert base64.b64decode(secret["data"]["door"]).decode() == f"tcp:{own_address()}:{gateway['port']}"
