"""Folders as the doctor sees them: on which file system, and borrowed for a while."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from ...clock import WALL

NETWORK = (
    *("nfs", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb", "panfs", "weka", "afs", "pvfs", "orangefs"),
    *("gluster", "fuse.", "9p", "virtiofs", "quobyte", "daos"),
)
LOCAL = ("ext", "xfs", "btrfs", "zfs", "tmpfs", "ramfs", "overlay", "apfs", "hfs", "ufs", "f2fs")
REMOVE_TRIES = 5


def filesystem(path: Path) -> str:
    """The type of the file system that ``path`` is on, or would be; empty where it cannot be told."""
    at = nearest(path).resolve()
    found = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    return next((found[folder] for folder in (at, *at.parents) if folder in found), "")


def is_network(kind: str) -> bool:
    """Whether other machines have this type of file system too."""
    return kind.startswith(NETWORK)


def is_local(kind: str) -> bool:
    """Whether it is one of this machine alone; False too where it is not known."""
    return kind.startswith(LOCAL)


def nearest(path: Path) -> Path:
    """The folder itself, or the first above it that is seen."""
    # os.path: a folder that may not be entered is no error
    return next(folder for folder in (path, *path.parents) if os.path.exists(folder))


@contextmanager
def borrowed(base: Path) -> Iterator[Path]:
    """A new folder in ``base``; afterwards it is gone, and what had to be made for it.

    Raises
    ------
    OSError
        It cannot be made.
    """
    made: list[Path] = []
    try:
        for folder in reversed([one for one in (base, *base.parents) if not one.exists()]):
            folder.mkdir(mode=0o700)
            made.append(folder)
        folder = Path(tempfile.mkdtemp(prefix="doctor-", dir=base))
        try:
            yield folder
        finally:
            remove(folder)
    finally:
        for folder in reversed(made):
            with suppress(OSError):  # someone uses it by now
                folder.rmdir()


def remove(folder: Path) -> None:
    """Remove a folder; NFS keeps files for a moment that another host has just closed."""
    for _ in range(REMOVE_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        WALL.sleep(0.5)
