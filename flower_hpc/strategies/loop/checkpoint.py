"""A run's checkpoints: one file a round, the newest kept; one that is damaged is passed over."""

import os
import re
from pathlib import Path
from typing import Any

from ...errors import ConfigError, RunError
from ...storage import load_tree, save_tree
from .log import LOG


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
        path = self.folder / f"round-{number:06d}.safetensors"
        try:
            save_tree(path, tree)
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
                return number, load_tree(path)
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
