"""What a message may cost: its time, its optimizer steps. Flower cannot cancel work, so the work asks.

The server writes ``deadline_s`` and numbers of steps into each train message. :class:`KeepBudget` notes when
the message came in, and the app asks :func:`budget_of` between batches whether there is time left.
"""

import math
import os
from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

from ..clock import WALL, Clock
from ..protocol import (
    DEADLINE_S,
    JOB_STATE_ENV,
    LOCAL_STEPS,
    LR_FACTOR,
    MAX_STEPS,
    NODE_STATE_ENV,
    RECEIVED_AT,
    config_of,
)

LOOK_EVERY_S = 0.25


@dataclass
class _StopFile:
    """``stop`` in the node's folder or the batch job's own, which says that it is to end."""

    seen: bool = False
    looked: float = -math.inf

    def exists(self, now: float) -> bool:
        # seldom: it may lie on a shared disk, and this is asked after every batch
        if not self.seen and now - self.looked >= LOOK_EVERY_S:
            self.looked = now
            folders = (os.environ.get(name) for name in (NODE_STATE_ENV, JOB_STATE_ENV))
            self.seen = any(os.path.exists(Path(folder) / "stop") for folder in folders if folder)
        return self.seen


@dataclass(frozen=True)
class Budget:
    """Seconds and optimizer steps that this message may take, the seconds counted from its receipt.

    Parameters
    ----------
    seconds : float
        The budget; infinite where the server set none.
    started : float
        ``clock.now()`` at receipt.
    local_steps : int, optional
        Do exactly so many steps; default: the app's own epochs.
    max_steps : int, optional
        Do at most so many steps; default: no limit.
    lr_factor : float
        Multiply the learning rate by it; default 1.
    """

    seconds: float
    started: float
    clock: Clock = WALL
    local_steps: int | None = None
    max_steps: int | None = None
    lr_factor: float = 1.0
    _stop: _StopFile = field(default_factory=_StopFile, init=False, repr=False, compare=False)

    def left(self) -> float:
        """Seconds left, so that ``while budget.left():`` ends; infinite without a deadline.

        0.0 when overspent, and from when the node or its batch job was told to stop (at most 0.25 s later).
        """
        now = self.clock.now()
        return 0.0 if self._stop.exists(now) else max(0.0, self.started + self.seconds - now)

    def spent(self) -> bool:
        """True when the work should stop and reply with what it has."""
        return self.left() == 0

    def steps(self, full: int) -> int:
        """How many optimizer steps to do, at least 1.

        Parameters
        ----------
        full : int
            Steps of the app's own epochs, ``ceil(examples / batch_size) * epochs``.
        """
        return max(1, self.local_steps or min(full, self.max_steps or full))


@dataclass(frozen=True)
class KeepBudget:
    """Mod that starts the budget when the message comes in; the innermost of our mods but ``Offload``."""

    clock: Clock = WALL

    def __call__(self, msg: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Stamp the message with its time of receipt."""
        if msg.has_content() and DEADLINE_S in (config := config_of(msg)):
            config[RECEIVED_AT] = self.clock.now()
        return call_next(msg, context)


def budget_of(msg: Message, clock: Clock = WALL) -> Budget:
    """The budget of a message; unlimited if it has none, starting now if no mod has stamped it.

    Values that make no sense (of another type, below 1 step, not finite) count as not given.
    """
    config = config_of(msg)
    seconds, started = _real(config.get(DEADLINE_S)), _real(config.get(RECEIVED_AT))
    factor = _real(config.get(LR_FACTOR))
    return Budget(
        math.inf if seconds is None else seconds,
        clock.now() if started is None else started,
        clock,
        _count(config.get(LOCAL_STEPS)),
        _count(config.get(MAX_STEPS)),
        factor if factor is not None and factor > 0 else 1.0,
    )


def _real(value: object) -> float | None:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else None  # type: ignore[arg-type]


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 1 else None
