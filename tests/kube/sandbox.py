"""A container's root as bubblewrap makes it: this machine's programs and Python, volumes, and nothing else.

Real: mount points, a read-only root, process ids, users (as far as a user namespace of one user goes), the
host name. Not real: the network is this machine's, no cgroup limits anything, and files of the image are this
machine's ``/usr``, parts of ``/etc``, its Python environment and the checkout of the package.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from kube.store import Object

TOP = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
ETC = (
    "passwd",
    "group",
    "ssl",
    "ca-certificates",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "alternatives",
)
ETC += ("nsswitch.conf", "localtime", "services", "protocols", "host.conf", "gai.conf", "resolv.conf")
EMPTY = ("/home", "/root", "/var", "/var/run", "/var/lib", "/run", "/mnt", "/opt", "/srv", "/etc")
TESTS = Path(__file__).parents[1]


@cache
def why_not() -> str:
    """Why there can be no container on this machine; empty where there can."""
    if not shutil.which("bwrap"):
        return "needs bwrap: apt-get install bubblewrap"
    test = ["bwrap", "--unshare-user", "--unshare-pid", "--ro-bind", "/", "/", "--proc", "/proc", "true"]
    done = subprocess.run(test, capture_output=True, text=True, check=False)
    return f"bwrap does not work here: {done.stderr.strip()}" if done.returncode else ""


@cache
def environment_folders() -> tuple[str, ...]:
    """Where this Python environment lies, and the checkout that it may point to."""
    real = Path(sys.executable).resolve().parents[1]
    folders = {sys.prefix, sys.base_prefix, str(real), str(TESTS.parent)}
    kept = {f for f in folders if not any(f != g and f.startswith(g + "/") for g in folders)}
    return tuple(sorted(f for f in kept if not f.startswith("/usr")))


def path_variable() -> str:
    """``PATH`` of the image: programs of the environment first."""
    return os.pathsep.join([str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"])


def arguments(
    pod: Object, container: Object, mounts: Iterable[tuple[Path, Object]], files: dict[str, Path], info: int
) -> list[str]:
    """The command line of bwrap up to the program; ``files`` are the kubelet's, such as /etc/hosts."""
    context = pod["spec"].get("securityContext", {}) | container.get("securityContext", {})
    uid = context.get("runAsUser", 0)
    gid = context.get("runAsGroup", context.get("fsGroup", uid and 0))
    words = ["bwrap", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
    words += ["--uid", str(uid), "--gid", str(gid), "--die-with-parent", "--new-session", "--as-pid-1"]
    words += ["--info-fd", str(info), "--clearenv", "--tmpfs", "/"]
    if not pod["spec"].get("hostNetwork"):
        words += ["--hostname", pod["spec"].get("hostname") or pod["metadata"]["name"]]
    for folder in EMPTY:
        words += ["--perms", "0755", "--dir", folder]
    for folder in ("/tmp", "/var/tmp"):
        words += ["--perms", "1777", "--dir", folder]
    bound = _image() + [("--bind", str(source), target) for target, source in files.items()]
    for source, mount in mounts:
        how = "--ro-bind" if mount.get("readOnly") else "--bind"
        bound.append((how, str(source), mount["mountPath"]))
    words += ["--dev", "/dev", "--proc", "/proc"]
    # outer ones first: /tmp may be a volume, and the environment may lie below it
    for how, source, target in sorted(bound, key=lambda b: b[2].rstrip("/").count("/")):
        words += [how, source, target]
    for device in _devices(container):
        words += ["--dev-bind", device, device]
    if context.get("readOnlyRootFilesystem"):
        words += ["--remount-ro", "/"]
    return [*words, "--chdir", container.get("workingDir", "/"), "--"]


def _image() -> list[tuple[str, str, str]]:
    bound = [("--ro-bind", "/usr", "/usr")]
    for name in TOP:
        if os.path.islink(f"/{name}"):
            bound.append(("--symlink", os.readlink(f"/{name}"), f"/{name}"))
        elif os.path.isdir(f"/{name}"):
            bound.append(("--ro-bind", f"/{name}", f"/{name}"))
    bound += [("--ro-bind", f"/etc/{n}", f"/etc/{n}") for n in ETC if os.path.exists(f"/etc/{n}")]
    bound += [("--ro-bind", "/sys", "/sys")] if os.path.isdir("/sys") else []
    return bound + [("--ro-bind", folder, folder) for folder in environment_folders()]


def _devices(container: Object) -> list[str]:
    if "nvidia.com/gpu" not in container.get("resources", {}).get("limits", {}):
        return []
    return [str(path) for path in Path("/dev").glob("nvidia*")]
