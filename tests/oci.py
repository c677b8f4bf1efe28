"""Makes a container image without any hub: this machine's Python, some packages, the libraries they need.

An image is a tar of files named by their sha256: https://github.com/opencontainers/image-spec
"""

import hashlib
import importlib.metadata as metadata
import io
import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

from packaging.requirements import Requirement

import flower_hpc

PYTHON = Path(sys.base_prefix) / "bin/python3"
OMITTED = {"site-packages", "test", "tests", "idlelib", "tkinter", "ensurepip", "lib2to3", "turtledemo"}
SCRIPT = "#!{python}\nimport sys\nfrom {module} import {attribute}\nsys.exit({attribute}())\n"
PAUSE = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit()); signal.pause()"
"""What the image does by itself: it serves as a pod's own container too, which only has to be there."""
FOLDERS = dict.fromkeys(("dev", "proc", "sys", "etc", "run"), 0o755)
# podman knows no fsGroup: a volume takes the mode of the folder that it covers
FOLDERS |= dict.fromkeys(("tmp", "dev/shm", "var/lib/flower-hpc"), 0o1777)
TYPES = "application/vnd.oci.image"


def write_image(path, name, python_path="/app"):
    """An image as a tar that ``podman load`` takes."""
    with tarfile.open(path, "w") as archive:
        layer = path.with_suffix(".layer")
        _write_layer(layer, python_path)
        digest = _add_file(archive, layer)
        layer.unlink()
        config = {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
            "os": "linux",
            "config": {
                "User": "1000:1000",
                "Entrypoint": [str(PYTHON), "-c", PAUSE],
                "Env": [f"PATH={PYTHON.parent}", f"PYTHONPATH={python_path}", "PYTHONDONTWRITEBYTECODE=1"],
            },
            "rootfs": {"type": "layers", "diff_ids": [digest["digest"]]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{TYPES}.manifest.v1+json",
            "config": {"mediaType": f"{TYPES}.config.v1+json"} | _add(archive, _json(config)),
            "layers": [{"mediaType": f"{TYPES}.layer.v1.tar"} | digest],
        }
        entry = {"mediaType": manifest["mediaType"]} | _add(archive, _json(manifest))
        entry["annotations"] = {"org.opencontainers.image.ref.name": name}
        _add(archive, _json({"schemaVersion": 2, "manifests": [entry]}), "index.json")
        _add(archive, _json({"imageLayoutVersion": "1.0.0"}), "oci-layout")
    return path


def _json(value):
    return json.dumps(value).encode()


def _add(archive, data, name=None):
    digest = hashlib.sha256(data).hexdigest()
    entry = tarfile.TarInfo(name or f"blobs/sha256/{digest}")
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))
    return {"digest": f"sha256:{digest}", "size": len(data)}


def _add_file(archive, path):
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        entry = tarfile.TarInfo(f"blobs/sha256/{digest}")
        entry.size = path.stat().st_size
        file.seek(0)
        archive.addfile(entry, file)
    return {"digest": f"sha256:{digest}", "size": entry.size}


def _write_layer(path, python_path):
    files = _python() | _packages(Path(python_path))
    files |= _libraries(source for source in files.values() if isinstance(source, Path))
    with tarfile.open(path, "w") as layer:
        for folder, mode in FOLDERS.items():
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            layer.addfile(entry)
        for target, source in sorted(files.items()):
            entry = tarfile.TarInfo(str(target).lstrip("/"))
            data = source if isinstance(source, bytes) else source.read_bytes()
            runs = isinstance(source, bytes) or os.access(source, os.X_OK)
            entry.size, entry.mode = len(data), 0o755 if runs else 0o644
            layer.addfile(entry, io.BytesIO(data))


def _python():
    """The interpreter and its standard library, where they are on this machine."""
    names = [PYTHON, PYTHON.with_name("python")]
    found = {name: PYTHON.resolve() for name in names}
    library = Path(sysconfig.get_path("stdlib", vars={"base": sys.base_prefix}))
    for folder, folders, names in os.walk(library):
        folders[:] = [each for each in folders if each not in OMITTED and not each.startswith("config-")]
        for each in names:
            found[Path(folder) / each] = Path(folder) / each
    return found


def _packages(root):
    """What this package needs, its programs, and itself."""
    found, wanted, seen = {}, ["flower-hpc"], set()
    while wanted:
        name = wanted.pop()
        if (key := re.sub(r"[-_.]+", "-", name).lower()) in seen:
            continue
        seen.add(key)
        one = metadata.distribution(name)
        wanted += [each.name for each in map(Requirement, one.requires or ()) if _holds(each)]
        for file in one.files or ():
            if ".." not in file.parts and not file.is_absolute() and file.suffix != ".pth":
                found[root / file] = Path(str(file.locate()))
        for entry in one.entry_points.select(group="console_scripts"):
            words = {"python": PYTHON, "module": entry.module, "attribute": entry.attr}
            found[PYTHON.with_name(entry.name)] = SCRIPT.format(**words).encode()
    ours = Path(flower_hpc.__file__).parent
    found |= {
        root / "flower_hpc" / file.relative_to(ours): file for file in ours.rglob("*") if file.is_file()
    }
    return {
        target: source for target, source in found.items() if isinstance(source, bytes) or source.is_file()
    }


def _holds(requirement):
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def _libraries(sources):
    """The shared libraries that programs and extension modules are linked with."""
    elves = [path for path in {*sources} if path == PYTHON.resolve() or ".so" in path.name]
    done = subprocess.run(["ldd", *map(str, elves)], capture_output=True, text=True, check=False)
    paths = {Path(os.path.normpath(word)) for word in re.findall(r"(?:=> |^\t)(/\S+)", done.stdout, re.M)}
    # wheels bring some of their own, which lie beside them in the image too
    return {path: path for path in paths if not path.is_relative_to(sys.prefix)}
