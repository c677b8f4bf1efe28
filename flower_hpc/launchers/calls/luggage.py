"""The folders of an app's modules: packed where they are, put down where the app is to run.

Flower unpacks an app into ``$FLWR_HOME/apps``, which hosts without a shared disk do not see. What the image
holds, they have already.
"""

import io
import os
import sys
import tarfile
from pathlib import Path

APPS = "apps"
LEFT_OUT = {"__pycache__", ".git"}


def app_folders() -> list[Path]:
    """Folders of this process's modules that lie where Flower unpacks apps."""
    home = os.environ.get("FLWR_HOME")
    if not home:
        return []
    apps = Path(os.path.abspath(home)) / APPS
    found = dict.fromkeys(Path(os.path.abspath(entry)) for entry in sys.path)
    return [folder for folder in found if folder.is_relative_to(apps) and folder.is_dir()]


def pack(folders: list[Path]) -> bytes:
    """Their files, compressed; each folder under its number."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as tar:
        for index, folder in enumerate(folders):
            tar.add(folder, str(index), filter=_wanted)
    return packed.getvalue()


def unpack(packed: bytes, into: Path) -> None:
    """Put them down below ``into``, and look for modules there first, in their order."""
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        tar.extractall(into, filter="data")
    sys.path[:0] = [str(folder) for folder in sorted(into.iterdir(), key=lambda each: int(each.name))]


def _wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if Path(member.name).name in LEFT_OUT else member
