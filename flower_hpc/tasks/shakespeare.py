"""Next character in Shakespeare's plays, a client a role (LEAF, Caldas et al. 2018).

https://arxiv.org/abs/1812.01097. Reads LEAF's JSON (``train/*.json``, ``test/*.json``) where it is there,
else ``speeches.jsonl``: one ``{"play", "role", "text", ...}`` a line.
"""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from torch import nn

from ..errors import ConfigError
from ..records import NDArray
from .data import find, missing
from .models import CharLSTM
from .options import TaskOptions
from .torch_task import TorchTask

# LEAF's 80 characters, in its order
CHARACTERS = "\n !\"&'(),-.0123456789:;>?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]abcdefghijklmnopqrstuvwxyz}"
WINDOW = 80
MIN_WINDOWS = 4  # a role with fewer for training is no client
TRAIN_PART = 0.9
FILES = ("train", "speeches.jsonl")

_CODES = np.full(256, CHARACTERS.index(" "), np.uint8)
_CODES[[ord(c) for c in CHARACTERS]] = np.arange(len(CHARACTERS))


@dataclass(frozen=True)
class Windows:
    """Windows of 80 characters and the character after each, as places in one encoded text.

    Parameters
    ----------
    text : uint8 array, shape (characters,)
        Positions in ``CHARACTERS``.
    starts : int64 array, shape (windows,)
        Where each window begins.
    roles : int64 array, shape (windows,)
        Number of the role; -1 where it has fewer than ``MIN_WINDOWS``.
    """

    text: NDArray
    starts: NDArray
    roles: NDArray

    @property
    def labels(self) -> NDArray:
        """The next characters, int64."""
        following: NDArray = self.text[self.starts + WINDOW].astype(np.int64)
        return following

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.starts)

    def __getitem__(self, index: list[int]) -> tuple[NDArray, NDArray]:
        """Int64 windows of shape (batch, 80) and next characters of shape (batch,)."""
        spans = self.text[self.starts[index][:, None] + np.arange(WINDOW + 1)].astype(np.int64)
        return spans[:, :-1].copy(), spans[:, -1].copy()

    def select(self, index: NDArray) -> Self:
        """Only these windows; the text is shared."""
        return type(self)(self.text, self.starts[index], self.roles[index])


class Shakespeare(TorchTask):
    """Eighty classes, the next character; windows begin at each character of a role's text.

    From speeches, a role is a pair (play, role), its text its speeches joined by newlines; the first 90 %
    of the characters are for training and the rest for testing, without overlap.
    """

    def _build(self) -> nn.Module:
        return self._build_narrow(1.0)

    def _build_narrow(self, width: float) -> nn.Module:
        return CharLSTM(len(CHARACTERS), width=width)

    def _load(self, train: bool) -> Windows:
        folder = find(self.options.data_dir, "shakespeare", FILES)
        if folder is None:  # no library fetches these
            raise missing(["train/*.json and test/*.json", FILES[1]], Path("DIR/shakespeare"))
        try:
            if (folder / "train").is_dir():
                return _leaf(folder / ("train" if train else "test"))
            return _speeches(folder / FILES[1], train)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"cannot read Shakespeare in {folder}: {type(error).__name__} {error}"
            ) from error


def encode(text: str) -> NDArray:
    """Positions in ``CHARACTERS``, uint8; whatever is not there becomes a space."""
    # "replace" writes a question mark, which is a character of its own here
    known = "".join(c if c in CHARACTERS else " " for c in text) if not text.isascii() else text
    codes: NDArray = _CODES[np.frombuffer(known.encode("ascii"), np.uint8)]
    return codes


def _speeches(path: Path, train: bool) -> Windows:
    spoken: dict[tuple[str, str], list[str]] = defaultdict(list)
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            speech = json.loads(line)
            spoken[speech["play"], speech["role"]].append(speech["text"])
    pieces = []
    for key in sorted(spoken):
        text = encode("\n".join(spoken[key]))
        cut = int(len(text) * TRAIN_PART)
        pieces.append(text[:cut] if train else text[cut:])
    counts = np.array([max(0, len(piece) - WINDOW) for piece in pieces])
    offsets = np.cumsum([0, *(len(piece) for piece in pieces[:-1])])
    starts = [np.arange(n) + at for n, at in zip(counts, offsets, strict=True)]
    return Windows(np.concatenate(pieces), np.concatenate(starts), _numbered(counts))


def _leaf(folder: Path) -> Windows:
    spans: dict[str, list[str]] = defaultdict(list)
    for path in sorted(folder.glob("*.json")):
        for user, data in json.loads(path.read_text(encoding="utf-8"))["user_data"].items():
            for x, y in zip(data["x"], data["y"], strict=True):
                if len(x) != WINDOW or not y:
                    raise ValueError(f"user {user!r}: an x is not {WINDOW} characters, or a y none")
                spans[user].append(x + y[0])
    if not spans:
        raise ValueError(f"no users in {folder.name}/*.json")
    users = sorted(spans)
    text = encode("".join(span for user in users for span in spans[user]))
    counts = np.array([len(spans[user]) for user in users])
    return Windows(text, np.arange(counts.sum()) * (WINDOW + 1), _numbered(counts))


def _numbered(counts: NDArray) -> NDArray:
    numbers = np.where(counts >= MIN_WINDOWS, np.arange(len(counts)), -1)
    return np.repeat(numbers, counts)


def create(options: TaskOptions) -> Shakespeare:
    """Make the task."""
    return Shakespeare(options)
