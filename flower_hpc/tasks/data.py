"""Where data lies, and a small cache of what is slow to compute again in every process."""

import logging
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import ConfigError
from ..protocol import DATA_ENV
from ..records import NDArray
from .options import TaskOptions

log = logging.getLogger(__name__)


def with_environment(options: TaskOptions) -> TaskOptions:
    """The options with ``FLOWER_HPC_DATA`` where they name no folder.

    Raises
    ------
    ConfigError
        The variable names a folder that does not exist.
    """
    folder = os.environ.get(DATA_ENV, "")
    if options.data_dir or not folder:
        return options
    if not Path(folder).expanduser().is_dir():
        raise ConfigError(f"{DATA_ENV} must be a folder that exists, got {folder!r}")
    return replace(options, data_dir=folder)


def cache_dir() -> Path:
    """``$XDG_CACHE_HOME/flower-hpc``, by default ``~/.cache/flower-hpc``; it may not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flower-hpc"


def find(data_dir: str, name: str, wanted: Sequence[str]) -> Path | None:
    """The folder that holds a task's files.

    Parameters
    ----------
    data_dir : str
        Holds the folder ``name``, or is that folder itself. Empty: the cache of downloads.
    name : str
        ``cifar10``, ``medmnist`` or ``shakespeare``.
    wanted : sequence of str
        Paths within it, of which one is enough.

    Returns
    -------
    Path or None
        None where no ``data_dir`` was given and nothing was downloaded before.

    Raises
    ------
    ConfigError
        A ``data_dir`` without such a file.
    """
    root = Path(data_dir).expanduser() if data_dir else cache_dir() / "data"
    for folder in (root / name, root):
        if any((folder / path).exists() for path in wanted):
            return folder
    if data_dir:
        raise missing(wanted, root / name)
    return None


def missing(wanted: Sequence[str], folder: Path, reason: str = "") -> ConfigError:
    """The one line that says where to put which file."""
    return ConfigError(
        f"no data{f' ({reason})' if reason else ''}: put {' or '.join(wanted)} into {folder}, "
        f"or give another folder with data-dir or {DATA_ENV}"
    )


def download(name: str, wanted: Sequence[str], fetch: Callable[[Path], object]) -> Path:
    """Let a library fetch its data into our cache; ``fetch`` gets the folder and shows its progress.

    Raises
    ------
    ConfigError
        Nothing came, as on a node without internet.
    """
    folder = cache_dir() / "data" / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fetch(folder)
    except (OSError, RuntimeError) as error:  # what urllib and medmnist raise
        line = " ".join(str(error).split())[:100] or type(error).__name__
        raise missing(wanted, folder, f"download failed: {line}") from error
    return folder


def remember(name: str, make: Callable[[], Mapping[str, NDArray]]) -> dict[str, NDArray]:
    """The arrays that ``make`` returns, from disk where a process of this machine made them before.

    Flower starts a process for every message, and importing what computes these arrays takes seconds.
    A cache that cannot be read or written costs time, never the run.

    Parameters
    ----------
    name : str
        Identifies the content fully, versions included: an entry is never refreshed.
    """
    path = cache_dir() / f"{name}.npz"
    try:
        with np.load(path) as stored:
            return {k: stored[k] for k in stored.files}
    except FileNotFoundError:
        log.debug("first use of %s", path)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        log.warning("made %s anew, it cannot be read: %s", path, error)
    arrays = dict(make())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as part:
            np.savez(part, **arrays)  # type: ignore[arg-type]
        os.replace(part.name, path)  # whole or not at all: other nodes read it meanwhile
    except OSError as error:
        log.debug("%s was not kept: %s", path, error)
    return arrays
