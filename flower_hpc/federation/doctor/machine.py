"""What the doctor checks on this machine: Python and Flower, who else is here, folders, ports, disk."""

import importlib.metadata
import os
import platform
import re
import shutil
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from ...errors import ConfigError, LaunchError
from ...launchers.ports import why_not
from ...launchers.probe import readable, versions, where
from ...network.namespace import can_enclose
from ..config import FederationConfig
from ..leftovers import shared_host
from ..link import make_private, socket_path, wants_private, why_refused
from ..site import Site
from ..state import HOME_ENV, StateDir
from ..superlink import check_port
from .finding import Finding, ok, problem, warning
from .folders import filesystem, is_network, nearest

PROGRAMS = ("flower-superlink", "flower-supernode", "flower-superexec", "flwr")
LEAST_FREE_GB = 1.0


def examine_machine(config: FederationConfig, state: StateDir, *, is_up: bool) -> Iterator[Finding]:
    """All that every federation needs of this machine."""
    yield python()
    yield flower()
    yield programs()
    yield network(config)
    yield shared(config)
    if wants_private(config):
        yield socket_folder(socket_path(state).parent)
    yield state_folder(state.path.parent)
    yield disk(state.path)
    yield superlink_port(config, is_up=is_up)
    if config.remote:
        yield gateway_port(config, is_up=is_up)


def python() -> Finding:
    """The Python that runs this."""
    return ok("Python", f"{platform.python_version()}, {sys.executable}")


def flower() -> Finding:
    """Whether this Flower is one that is supported."""
    found, wanted = versions()["flwr"], supported("flwr")
    if found is not None and within(found, wanted):
        return ok("Flower", f"{found}, supported is {wanted}")
    mend = f"pip install 'flwr{wanted}'"
    return problem("Flower", f"{found or 'not installed'}, supported is {wanted}", mend)


def supported(package: str) -> str:
    """The versions of a package that this one asks for, such as ``>=1.41,<1.43``; empty for any."""
    needed = importlib.metadata.requires("flower-hpc") or []
    first = (re.match(rf"{package}([<>=!~0-9.,]*)", line) for line in needed if "extra ==" not in line)
    return next((found[1] for found in first if found), "")


def within(version: str, wanted: str) -> bool:
    """Whether ``version`` satisfies ``>=`` and ``<``; what else ``wanted`` says is not judged."""
    for sign, bound in re.findall(r"(>=|<)([0-9.]+)", wanted):
        low = numbers(version) < numbers(bound)
        if low is (sign == ">="):
            return False
    return True


def numbers(version: str) -> list[int]:
    """Of a version, in order."""
    return [int(part) for part in re.findall(r"\d+", version)]


def programs() -> Finding:
    """Flower's programs, which an unusual installation lacks."""
    missing = [name for name in PROGRAMS if where(name) is None]
    if not missing:
        return ok("programs", f"{', '.join(PROGRAMS)} are there")
    mend = f"pip install --force-reinstall flwr, with {sys.executable}"
    return problem("programs", f"neither beside Python nor on PATH: {', '.join(missing)}", mend)


def network(config: FederationConfig) -> Finding:
    """Whether the SuperLink can have a network of its own, and does without one where it cannot."""
    refused, reason = why_refused(config), can_enclose()
    if refused is not None:
        mend = "use a host that nobody else uses, or write security: {shared_host: accept}"
        return problem("network", refused, mend)
    if reason is None:
        return ok("network", "private networks can be had here")
    mend = "ask the administrators for unprivileged user namespaces, or do not share this host"
    return warning("network", f"no private network: {reason}", mend)


def shared(config: FederationConfig) -> Finding:
    """Whether other people could reach the SuperLink's port."""
    if not shared_host():
        return ok("shared host", "nobody else is seen here")
    if wants_private(config):
        return ok("shared host", "other people use it; the SuperLink gets a network of its own")
    mend = "security: {network: private}, or a host of your own"
    return warning("shared host", "others who find the SuperLink's port can have code run as you", mend)


def socket_folder(folder: Path) -> Finding:
    """Where the socket into the SuperLink's network lies."""
    there = folder.exists()
    try:
        make_private(folder)
    except LaunchError as error:
        mend = "remove it, or set XDG_RUNTIME_DIR to a folder of yours (or unset it)"
        return problem("socket folder", str(error), mend)
    finally:
        if not there and folder.is_dir():
            folder.rmdir()
    return ok("socket folder", str(folder))


def state_folder(home: Path) -> Finding:
    """Whose ``$FLOWER_HPC_HOME`` is, and where."""
    at = nearest(home)
    found, kind = at.stat(), filesystem(home)
    words = f"{home}{f' on {kind}' if kind else ''}"
    mend = f"set {HOME_ENV} to a folder of yours on a disk of this machine"
    if at == home and found.st_uid not in (os.getuid(), 0):
        return problem("state folder", f"{words} belongs to another user", mend)
    if not at.is_dir() or not os.access(at, os.W_OK | os.X_OK):
        return problem("state folder", f"{words} cannot be written", mend)
    if at == home and found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
        return warning("state folder", f"{words} can be changed by other users", f"chmod go-w {home}")
    if is_network(kind):
        return warning("state folder", f"{words}: its database (SQLite) wants a local disk", mend)
    return ok("state folder", words)


def disk(path: Path) -> Finding:
    """Room for models, logs and the database."""
    free = shutil.disk_usage(nearest(path)).free / 1e9
    if free < LEAST_FREE_GB:
        return warning("disk", f"{free:.1f} GB free at {path}", f"make room, or set {HOME_ENV}")
    return ok("disk", f"{free:.0f} GB free at {path}")


def superlink_port(config: FederationConfig, *, is_up: bool) -> Finding:
    """Whether the configured port is to be had."""
    if config.superlink.port is None:
        return ok("SuperLink's port", "a free one is found")
    try:
        if not is_up:
            check_port(config)
    except ConfigError as error:
        return problem("SuperLink's port", str(error), "superlink: {port: null} finds a free one")
    return ok(
        "SuperLink's port", f"{config.superlink.port} is {'in use by this federation' if is_up else 'free'}"
    )


def gateway_port(config: FederationConfig, *, is_up: bool) -> Finding:
    """Whether nodes from beyond this machine can be let in where the file says."""
    host, port = config.gateway.host, config.gateway.port
    reason = None if is_up else why_not(host, port or 0)
    if reason == "taken":
        return problem("gateway's port", f"{port} is taken", "gateway: {port: null} finds a free one")
    if reason is not None:
        mend = "gateway.host: 0.0.0.0, or an address of this machine; ports below 1024 are root's"
        return problem("gateway's port", f"{host} port {port or 'any'}: {reason}", mend)
    address = config.gateway.address or socket.gethostname()
    return ok("gateway's port", f"{port or 'a free one is found'}, for nodes at {address}")


def data_folder(site: Site) -> Finding:
    """The data of a site whose nodes run here."""
    if site.data_dir is None:
        return ok("data", "no data_dir is asked for")
    if readable(site.data_dir):
        return ok("data", site.data_dir)
    mend = "data_dir: a folder that exists here and that you may read"
    return problem("data", f"{site.data_dir} is no such folder", mend)
