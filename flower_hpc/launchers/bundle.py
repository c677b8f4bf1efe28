"""What nodes of a site without a shared disk are given: a few small files, and how they are read there.

A bundle is ``ca.pem``, ``door`` (where the SuperLink is), ``nodes.json.gz`` (how each node starts) and
``NAME.key`` for each node. It travels as a Kubernetes Secret or as EC2 parameters, or is handed over as a
folder, lies in :data:`ROOT` of the node's host, and holds nothing of other sites.
"""

import gzip
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from ..errors import LaunchError
from .base import JobSpec

ROOT, HOME = Path("/etc/flower-hpc"), Path("/var/lib/flower-hpc")
"""Where a node finds its bundle, and where it keeps what shall last."""
CA, DOOR, NODES = "ca.pem", "door", "nodes.json.gz"
ADDRESS, HEALTH, HEALTH_PORT = "FLOWER_HPC_ADDRESS", "FLOWER_HPC_HEALTH", 9098
POD, POD_UID = "FLOWER_HPC_POD", "FLOWER_HPC_POD_UID"
"""Where the platform says which address is the node's own, Flower's health server listens there."""


def key_file(name: str) -> str:
    """The name of a node's private key in a bundle."""
    return f"{name}.key"


def pack(folder: Path, specs: Iterable[JobSpec]) -> dict[str, bytes]:
    """The files of a bundle by name.

    Parameters
    ----------
    folder : Path
        The site's folder on this machine: ``ca.pem``, ``door`` and ``keys/NAME``.
    specs : iterable of JobSpec
        The nodes; their commands name files below :data:`ROOT`.

    Raises
    ------
    LaunchError
        One of the files cannot be read.
    """
    specs = sorted(specs, key=lambda spec: spec.name)
    files = {CA: folder / CA, DOOR: folder / DOOR}
    files |= {key_file(spec.name): folder / "keys" / spec.name for spec in specs}
    nodes = json.dumps({spec.name: as_data(spec) for spec in specs}, sort_keys=True)
    try:
        read = {name: path.read_bytes() for name, path in files.items()}
    except OSError as error:
        raise LaunchError(f"{error.filename} cannot be read: {error.strerror}") from error
    # 1,000 nodes are 1.5 MB of JSON that says nearly the same of each: a Secret holds 1 MiB
    return read | {NODES: gzip.compress(nodes.encode(), mtime=0)}


def unpack(root: Path, name: str) -> JobSpec | None:
    """How a node is started; None where the bundle does not know it yet, or its key is missing.

    Raises
    ------
    LaunchError
        The bundle is damaged.
    """
    try:
        data = json.loads(gzip.decompress((root / NODES).read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError) as error:
        raise LaunchError(f"{root / NODES} is damaged: {error}") from error
    try:
        if name not in dict(data) or not (root / key_file(name)).is_file():
            return None
        return replace(from_data(data[name]), door=root / DOOR)
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        words = f"{root / NODES} is damaged, or of another version: {type(error).__name__} {error}"
        raise LaunchError(" ".join(words.split())) from error


def placed(spec: JobSpec, root: Path, home: Path) -> JobSpec:
    """``spec`` with its bundle in ``root`` in place of :data:`ROOT`, and its own files below ``home``."""

    def moved(word: str) -> str:
        for old, new in ((ROOT, root), (HOME, home)):
            if word == str(old) or word.startswith(f"{old}/"):
                return str(new) + word.removeprefix(str(old))
        return word

    return replace(
        spec,
        command=tuple(map(moved, spec.command)),
        env={key: moved(value) for key, value in spec.env.items()},
        cwd=Path(moved(str(spec.cwd))),
        log=Path(moved(str(spec.log))),
    )


def as_data(spec: JobSpec) -> dict[str, object]:
    """A spec as plain values."""
    paths = {"cwd": str(spec.cwd), "log": str(spec.log), "door": str(spec.door) if spec.door else None}
    return {"name": spec.name, "command": list(spec.command), "env": dict(spec.env), **paths}


def from_data(data: Mapping[str, object], fingerprint: str = "") -> JobSpec:
    """The spec of :func:`as_data`."""
    command, env, door = data["command"], data["env"], data["door"]
    assert isinstance(command, list)
    assert isinstance(env, dict)
    return JobSpec(
        name=str(data["name"]),
        command=tuple(command),
        env=env,
        cwd=Path(str(data["cwd"])),
        log=Path(str(data["log"])),
        door=Path(str(door)) if door else None,
        fingerprint=fingerprint,
    )
