"""A state as one safetensors file, written whole or not at all, believed only if undamaged.

A state is a tree of dicts, lists and tuples (see :func:`pack`). Its arrays become the tensors of the file;
the rest becomes a JSON text in the file's metadata, beside a digest of the text and of all tensors.
"""

import json
import os
from hashlib import blake2b
from pathlib import Path
from typing import Any

from safetensors import safe_open

from ..errors import RunError
from ..records import NDArray
from .packing import NATIVE, pack, raw, unpack

VERSION = 1
MARK = "flower_hpc.checkpoint"  # the metadata's key for the version
MAX_TEXT = 40_000_000  # safetensors reads headers up to 100 MB, and quotes in the text are doubled there


def save_tree(path: Path, tree: Any) -> None:
    """Write ``tree`` to ``path``, whose folder is made.

    Raises
    ------
    TypeError
        Something in the tree that :func:`pack` does not know.
    RunError
        More than 40 MB besides its arrays.
    OSError
        The disk is full, or the folder cannot be written.
    """
    text, arrays = pack(tree)
    if len(text) > MAX_TEXT:
        raise RunError(f"cannot write {path}: {len(text)} bytes besides its arrays")
    temporary = path.with_name(path.name + ".tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_file(temporary, text, arrays)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


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


def load_tree(path: Path) -> Any:
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
