"""The volumes of a pod as folders of this machine; secrets and the like are written as a kubelet does."""

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from kube.environment import data_of, expand, field_of
from kube.housekeeping import claim_folder
from kube.store import Object, Store

Payload = dict[str, tuple[bytes, int]]  # by path: content and mode
WRITTEN = ("secret", "configMap", "projected", "downwardAPI")


class MountError(Exception):
    """What keeps a pod in ``ContainerCreating``: an event ``FailedMount``."""


class Volumes:
    """The volumes of one pod; ``folder`` is the pod's, ``cluster`` where claims lie."""

    def __init__(self, store: Store, folder: Path, cluster: Path, ca: bytes, token: Callable[[Object], str]):
        self.store, self.folder, self.cluster, self.ca = store, folder, cluster, ca
        self._token_of, self._token = token, ""
        self._written: dict[str, Payload] = {}

    def prepare(self, pod: Object) -> None:
        """Make all of them, or bring those up to date that are written."""
        for volume in pod["spec"].get("volumes", []):
            path = self.path(pod, volume["name"])
            if any(key in volume for key in WRITTEN):
                self._write(pod, volume, path)
            elif "hostPath" in volume:
                _host_path(volume["name"], volume["hostPath"])
            elif "emptyDir" in volume or "ephemeral" in volume:
                path.mkdir(parents=True, exist_ok=True)
                path.chmod(0o777)
            elif "persistentVolumeClaim" not in volume:
                raise MountError(f'volume "{volume["name"]}": no such plugin in this stand-in')

    def path(self, pod: Object, name: str) -> Path:
        """Where a volume lies."""
        volume = next(v for v in pod["spec"]["volumes"] if v["name"] == name)
        if "hostPath" in volume:
            return Path(volume["hostPath"]["path"])
        if "persistentVolumeClaim" in volume:
            which = volume["persistentVolumeClaim"]["claimName"]
            claim = self.store.find("persistentvolumeclaims", pod["metadata"]["namespace"], which)
            if claim is None or claim["status"]["phase"] != "Bound":
                raise MountError(f'persistentvolumeclaim "{which}" not found')
            return claim_folder(self.cluster, claim)
        return self.folder / "volumes" / name

    def mount(self, pod: Object, mount: Object, env: dict[str, str]) -> tuple[Path, Object]:
        """Where it comes from, and how: nobody may write into what the kubelet writes."""
        volume = next(v for v in pod["spec"]["volumes"] if v["name"] == mount["name"])
        fixed = any(key in volume for key in WRITTEN)
        return self.source(pod, mount, env), mount | ({"readOnly": True} if fixed else {})

    def source(self, pod: Object, mount: Object, env: dict[str, str]) -> Path:
        """What is mounted: the volume, or what its ``subPath`` names now."""
        path = self.path(pod, mount["name"])
        below = mount.get("subPath") or expand(mount.get("subPathExpr", ""), env)
        if not below:
            return path
        volume = next(v for v in pod["spec"]["volumes"] if v["name"] == mount["name"])
        found = path / below
        if not found.exists() and not any(key in volume for key in WRITTEN):
            found.mkdir(parents=True)
        return found.resolve()

    def _write(self, pod: Object, volume: Object, path: Path) -> None:
        name = volume["name"]
        kind = next(key for key in WRITTEN if key in volume)
        source = volume[kind]
        mode = source.get("defaultMode", 0o644)
        try:
            if kind == "projected":
                payload: Payload = {}
                for part in source.get("sources", []):
                    for inner, value in part.items():
                        payload |= self._payload(pod, inner, value, mode)
            else:
                payload = self._payload(pod, kind, source, mode)
        except MountError as error:
            if name in self._written:
                return  # a kubelet keeps the old content
            raise MountError(f'MountVolume.SetUp failed for volume "{name}" : {error}') from None
        if self._written.get(name) != payload:
            group = pod["spec"].get("securityContext", {}).get("fsGroup") is not None
            write_atomically(path, payload, group)
            self._written[name] = payload

    def _payload(self, pod: Object, kind: str, source: Object, mode: int) -> Payload:
        if kind == "serviceAccountToken":
            self._token = self._token or self._token_of(pod)
            return {source["path"]: (self._token.encode(), 0o600 if mode == 0o644 else mode)}
        if kind == "downwardAPI":
            return {
                item["path"]: (field_of(pod, item["fieldRef"]["fieldPath"]).encode(), item.get("mode", mode))
                for item in source.get("items", [])
            }
        plural = "secrets" if kind == "secret" else "configmaps"
        name = source.get("secretName") or source.get("name", "")
        if name == "kube-root-ca.crt":
            found = {"ca.crt": self.ca}
        else:
            found = data_of(self.store, plural, pod["metadata"]["namespace"], name)
        if found is None:
            if source.get("optional"):
                return {}
            raise MountError(f'{plural[:-1]} "{name}" not found')
        if "items" not in source:
            return {key: (value, mode) for key, value in found.items()}
        lacking = [i["key"] for i in source["items"] if i["key"] not in found]
        if lacking and not source.get("optional"):
            raise MountError(f"references non-existent {plural[:-1]} key: {lacking[0]}")
        return {
            i["path"]: (found[i["key"]], i.get("mode", mode)) for i in source["items"] if i["key"] in found
        }


def _host_path(name: str, source: Object) -> None:
    path, kind = Path(source["path"]), source.get("type", "")
    if kind in ("", "DirectoryOrCreate"):
        path.mkdir(parents=True, exist_ok=True) if not path.exists() else None
    elif kind in ("Directory", "File") and not (path.is_dir() if kind == "Directory" else path.is_file()):
        said = f"hostPath type check failed: {path} is not a {kind.lower()}"
        raise MountError(f'MountVolume.SetUp failed for volume "{name}" : {said}')


def write_atomically(path: Path, payload: Payload, group: bool) -> None:
    """All files in a new folder, to which ``..data`` points from then on; names are links through it."""
    path.mkdir(parents=True, exist_ok=True)
    fresh = path / f"..{uuid.uuid4().hex[:12]}"
    for name, (content, mode) in payload.items():
        (fresh / name).parent.mkdir(parents=True, exist_ok=True)
        (fresh / name).write_bytes(content)
        (fresh / name).chmod(mode | (0o440 if group else 0))
    fresh.mkdir(exist_ok=True)
    data, old = path / "..data", None
    if data.is_symlink():
        old = path / os.readlink(data)
    (path / "..data_tmp").symlink_to(fresh.name)
    os.replace(path / "..data_tmp", data)
    tops = {name.partition("/")[0] for name in payload}
    for top in tops:
        if not (path / top).is_symlink():
            (path / top).symlink_to(f"..data/{top}")
    for entry in path.iterdir():
        if entry.is_symlink() and entry.name not in tops and not entry.name.startswith(".."):
            entry.unlink()
    if old:
        shutil.rmtree(old, ignore_errors=True)
