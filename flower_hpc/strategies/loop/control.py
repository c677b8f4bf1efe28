"""SCAFFOLD's control variates, the server's half (Karimireddy et al. 2020, https://arxiv.org/abs/1910.06378).

The server's ``c`` travels with each train message as bytes in its config; a reply carries ``c_i+ - c_i``.
With ``S`` the nodes whose updates an aggregation joins and ``N`` all nodes (equation 5):

    c <- c + |S| / N * mean over S of (c_i+ - c_i)

The mean is plain, whatever the updates themselves weigh.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Message

from ...errors import ReplyError
from ...mean import StreamingMean
from ...protocol import CONTROL
from ...records import Weights, from_bytes, is_inexact, to_bytes
from ..work import Assignment


@dataclass
class Control:
    """The server's control variate and the changes that came for it.

    Parameters
    ----------
    variate : Weights
        ``c``, floating-point arrays of the model's names and shapes.
    """

    variate: Weights

    def __post_init__(self) -> None:
        self._changes, self._count = StreamingMean(), 0
        self._asks: Assignment | None = None

    @classmethod
    def of(cls, model: Weights) -> "Control":
        """Zeros like a model's floating-point arrays."""
        return cls({k: np.zeros_like(x) for k, x in model.items() if is_inexact(x)})

    def asks(self) -> Assignment:
        """What a train message carries; the same bytes for all until the next step."""
        if self._asks is None:
            self._asks = {CONTROL: to_bytes(self.variate)}
        return self._asks

    def read(self, message: Message) -> Weights:
        """The change in a reply; ReplyError where there is none or it does not fit."""
        record = message.content.get(CONTROL)
        data = record.get(CONTROL) if isinstance(record, ConfigRecord) else None
        if not isinstance(data, bytes):
            raise ReplyError("it carries no control variate: its app lacks flower_hpc.client.Control")
        return from_bytes(data, self.variate)

    def add(self, change: Weights) -> None:
        """Take in one."""
        self._changes.add(change, 1.0, is_update=True)
        self._count += 1

    def step(self, nodes: int) -> None:
        """Move ``c``, at an aggregation among ``nodes`` nodes in all."""
        if self._count:
            size = min(1.0, self._count / max(1, nodes))
            self.variate, self._asks = self._changes.result(self.variate, size), None
            self._changes, self._count = StreamingMean(), 0

    def to_tree(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"variate": self.variate, "changes": self._changes.to_tree(), "count": self._count}

    def restore(self, tree: Mapping[str, Any]) -> None:
        """Take over what :meth:`to_tree` gave."""
        self.variate, self._count, self._asks = tree["variate"], tree["count"], None
        self._changes.restore(tree["changes"])
