"""A run's checkpoints: one safetensors file a round, written whole or not at all, believed only if undamaged.

A state is a tree of dicts, lists and tuples. Its arrays become the tensors of the file; the rest becomes a
JSON text in the file's metadata, beside a digest of the text and of all tensors.
"""

import json
import os
import re
from hashlib import blake2b
from pathlib import Path
from typing import Any

from safetensors import safe_open

from ...errors import ConfigError, RunError
from ...records import NDArray
from .packing import NATIVE, pack, raw, unpack
from .log import LOG

VERSION = 1
MARK = "flower_hpc.checkpoint"  # the metadata's key for the version
MAX_TEXT = 40_000_000  # safetensors reads headers up to 100 MB, and quotes in the text are doubled there


class Checkpoints:
    """The checkpoints of one run, of which there is one writer.

    Parameters
    ----------
    folder : Path
        Where the files lie; made at the first save.
    keep : int
        How many to keep, >= 2; default 3. One alone would leave nothing to fall back to.

    Attributes
    ----------
    damaged : list of str
        What the last :meth:`latest` skipped: ``"<file name>: <reason>"``, newest first.

    Raises
    ------
    ConfigError
        ``keep`` below 2.
    """

    def __init__(self, folder: Path, keep: int = 3) -> None:
        if isinstance(keep, bool) or not isinstance(keep, int) or keep < 2:
            raise ConfigError(f"keep must be a whole number of checkpoints >= 2, got {keep!r}")
        self.folder, self.keep = folder, keep
        self.damaged: list[str] = []

    def save(self, number: int, tree: Any) -> Path:
        """Write ``tree`` as checkpoint ``number`` (>= 0), then remove all but the ``keep`` newest.

        Raises
        ------
        TypeError
            Something in the tree that :func:`pack` does not know.
        RunError
            The disk is full, or the folder cannot be written.
        """
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise ConfigError(f"a checkpoint's number must be a whole number >= 0, got {number!r}")
        text, arrays = pack(tree)
        if len(text) > MAX_TEXT:
            raise RunError(
                f"cannot write a checkpoint to {self.folder}: {len(text)} bytes besides its arrays"
            )
        path = self.folder / f"round-{number:06d}.safetensors"
        temporary = path.with_name(path.name + ".tmp")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                write_file(temporary, text, arrays)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
            sync_folder(self.folder)
            self._prune(path)
        except OSError as error:
            raise RunError(
                f"cannot write a checkpoint to {self.folder}: {error.strerror or error}"
            ) from error
        return path

    def latest(self) -> tuple[int, Any] | None:
        """Number and tree of the newest checkpoint that is whole; None without one.

        Damaged ones are skipped with a warning and listed in ``damaged``.

        Raises
        ------
        RunError
            There is a folder but it cannot be listed: starting anew would be the wrong answer.
        """
        self.damaged = []
        for number, path in reversed(self._files()):
            try:
                return number, read_file(path)
            except MemoryError:
                raise
            except Exception as error:  # safetensors and NumPy raise what they like on damaged bytes
                reason = " ".join(str(error).split()) or type(error).__name__
                self.damaged.append(f"{path.name}: {reason}")
                LOG.warning("skipping checkpoint %s: %s", path, reason)
        return None

    def _files(self) -> list[tuple[int, Path]]:
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RunError(f"cannot read checkpoints in {self.folder}: {error.strerror or error}") from error
        found = (re.fullmatch(r"round-([0-9]{6,})\.safetensors", name) for name in names)
        return sorted((int(match[1]), self.folder / match[0]) for match in found if match)

    def _prune(self, saved: Path) -> None:
        for _, path in self._files()[: -self.keep]:
            if path != saved:  # a lower number than those of an earlier try is still the one to keep
                path.unlink(missing_ok=True)
        for path in self.folder.glob("round-*.safetensors.tmp"):  # of a writer that was killed
            path.unlink(missing_ok=True)


def digest(text: str, arrays: dict[str, NDArray]) -> str:
    """BLAKE2b over a packed state: its text, and each array's key, dtype, shape and bytes."""
    found = blake2b(text.encode(), digest_size=32)
    for key, x in sorted(arrays.items()):
        found.update(f"\n{key} {x.dtype.str} {x.shape}\n".encode())
        found.update(raw(x).data)
    return found.hexdigest()


def write_file(path: Path, text: str, arrays: dict[str, NDArray]) -> None:
    """Write a packed state as a safetensors file, down to the disk."""
    # by hand: safetensors' own writer hides OSError, leaves files when killed, and copied before 0.8
    header: dict[str, Any] = {
        "__metadata__": {MARK: str(VERSION), "blake2b": digest(text, arrays), "tree": text}
    }
    aligned, offset = sorted(arrays.items(), key=lambda item: -item[1].itemsize), 0
    for key, x in aligned:
        span = [offset, offset + x.nbytes]
        header[key], offset = {"dtype": NATIVE[x.dtype.str], "shape": x.shape, "data_offsets": span}, span[1]
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for _, x in aligned:
            file.write(raw(x).data)
        file.flush()
        os.fsync(file.fileno())


def read_file(path: Path) -> Any:
    """The state in a file; ValueError, or whatever safetensors raises, where it is not whole."""
    with safe_open(path, framework="np") as file:
        meta, keys = file.metadata() or {}, file.keys()
        if MARK not in meta:
            raise ValueError("not a checkpoint of flower-hpc")
        if meta[MARK] != str(VERSION):
            raise ValueError(f"has format {meta[MARK]!r}, while this flower-hpc reads {VERSION}")
        arrays = {key: file.get_tensor(key) for key in keys}
    text = meta.get("tree", "")
    if meta.get("blake2b") != digest(text, arrays):
        raise ValueError("its content does not match its digest")
    return unpack(text, arrays)


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
