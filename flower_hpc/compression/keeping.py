"""What a node keeps of a run between messages: on its disk where it has a folder, else in Flower's state.

Flower starts a process for each message, and forgets ``context.state`` when the SuperNode restarts. The
folder ``$FLOWER_HPC_NODE_STATE/residuals/<node>/<run>`` outlives both. It is removed when the run ends (by
the federation's controller), or when nobody has used it for two weeks.
"""

import logging
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context

from ..protocol import NODE_STATE_ENV, RESIDUALS, UNNAMED, UNNAMED_AGE_S
from ..records import to_record, to_weights
from ..storage import file_name, load_tree, pack, save_tree, unpack

LOG = logging.getLogger("flwr.hpc")
MAX_AGE_S = 14 * 24 * 3600.0
MAX_GB = 20.0


class Keeping:
    """Named trees of one node and run.

    Parameters
    ----------
    node, run : str
        Their names.
    context : Context
        Whose state serves where the node has no folder.
    max_gb : float
        The most that the node's runs may take on disk; the oldest other runs go first. Default 20.
    """

    def __init__(self, node: str, run: str, context: Context, max_gb: float = MAX_GB) -> None:
        self.node, self._run = node, run
        self._context, self._max = context, max_gb * 1e9
        root = os.environ.get(NODE_STATE_ENV)
        self.folder = run_folder(Path(root), node, run) if root else None

    def load(self, kind: str) -> Any:
        """The tree of that kind, or None; one that is damaged is none."""
        if self.folder is None:
            return self._from_state(kind)
        path = self._path(kind)
        try:
            return load_tree(path) if path.exists() else None
        except Exception as error:  # safetensors and NumPy raise what they like on damaged bytes
            LOG.warning("cannot read %s, which starts anew: %s", path, " ".join(str(error).split()))
            return None

    def save(self, kind: str, tree: Any) -> bool:
        """Keep a tree; False where the disk does not take it: nothing is kept then, and the work goes on."""
        if self.folder is None:
            self._to_state(kind, tree)
            return True
        try:
            save_tree(self._path(kind), tree)
            self._tidy()
        except OSError as error:
            LOG.warning("cannot keep %s in %s: %s", kind, self.folder, error.strerror or error)
            with suppress(OSError):  # an older one would count twice
                self._path(kind).unlink(missing_ok=True)
            return False
        return True

    def _path(self, kind: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{kind}.safetensors"

    def _tidy(self) -> None:
        """Remove what is old, then the oldest, until the rest fits."""
        assert self.folder is not None
        os.utime(self.folder)
        others = sorted(
            (p for p in self.folder.parent.iterdir() if p.is_dir() and p != self.folder),
            key=lambda p: p.stat().st_mtime,
        )
        now, total = time.time(), _size(self.folder) + sum(_size(p) for p in others)
        for folder in others:
            most = UNNAMED_AGE_S if folder.name.startswith(UNNAMED) else MAX_AGE_S
            if total > self._max or now - folder.stat().st_mtime > most:
                total -= _size(folder)
                shutil.rmtree(folder, ignore_errors=True)

    def _from_state(self, kind: str) -> Any:
        key = f"flower-hpc.{kind}"
        record = self._context.state.config_records.get(key)
        if record is None or record.get("run") != self._run:
            return None
        return unpack(str(record["tree"]), to_weights(self._context.state.array_records[f"{key}.arrays"]))

    def _to_state(self, kind: str, tree: Any) -> None:
        key, (text, arrays) = f"flower-hpc.{kind}", pack(tree)
        self._context.state[f"{key}.arrays"] = to_record(arrays) if arrays else ArrayRecord()
        self._context.state[key] = ConfigRecord({"run": self._run, "tree": text})


def run_folder(root: Path, node: str, run: str) -> Path:
    """Where a node keeps a run's state below its own folder."""
    return root / RESIDUALS / file_name(node) / file_name(run)


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.glob("*") if p.is_file())
