"""What a file names that is not on this machine: packages to keep warm, programs that start MPI jobs.

Only a warning: `setup`, a container or an app's own environment may have them all the same.
"""

import shlex
import shutil
from collections.abc import Iterator, Mapping
from importlib.util import find_spec

from .site import Site


def missing(sites: Mapping[str, Site]) -> Iterator[str]:
    """A line for each site of this machine that names something that is not to be found here."""
    for name, site in sites.items():
        if site.launcher != "local":  # other machines may have what this one has not
            continue
        absent = [package for package in _warm(site) if not _there(package)]
        if absent:
            words = "no such package in this Python, so there is nothing to keep warm"
            yield f"sites.{name}.warm: {', '.join(absent)}: {words}"
        program = _program(site)
        if program and shutil.which(program, path=site.env.get("PATH")) is None:
            yield f"sites.{name}.mpi.launch: {program}: no such program on PATH, so the site cannot train"


def _warm(site: Site) -> list[str]:
    return site.warm if isinstance(site.warm, list) else []


def _there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # half a package, or one that was made by hand
        return False


def _program(site: Site) -> str:
    words = shlex.split(site.mpi.launch) if site.mpi is not None and site.mpi.launch else []
    return words[0] if words else ""
