"""A client's time budget: Flower cannot cancel work, so the work watches its own clock.

The server writes ``deadline_s`` into each train message. :class:`KeepBudget` notes when the message came
in, and the app asks :func:`budget_of` between batches whether there is time left.
"""

from dataclasses import dataclass

from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

from ..clock import WALL, Clock
from ..protocol import DEADLINE_S, RECEIVED_AT, config_of


@dataclass(frozen=True)
class Budget:
    """Seconds that this message may take, counted from its receipt.

    Parameters
    ----------
    seconds : float
        The budget; infinite where the server set none.
    started : float
        ``clock.now()`` at receipt.
    """

    seconds: float
    started: float
    clock: Clock = WALL

    def left(self) -> float:
        """Seconds left; negative when overspent."""
        return self.started + self.seconds - self.clock.now()

    def spent(self) -> bool:
        """True when the work should stop and reply with what it has."""
        return self.left() <= 0


@dataclass(frozen=True)
class KeepBudget:
    """Mod that starts the budget when the message comes in; the innermost of our mods."""

    clock: Clock = WALL

    def __call__(self, msg: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Stamp the message with its time of receipt."""
        if msg.has_content() and DEADLINE_S in (config := config_of(msg)):
            config[RECEIVED_AT] = self.clock.now()
        return call_next(msg, context)


def budget_of(msg: Message, clock: Clock = WALL) -> Budget:
    """The budget of a message; unlimited if it has none, starting now if no mod has stamped it."""
    config = config_of(msg)
    seconds, started = config.get(DEADLINE_S), config.get(RECEIVED_AT)
    return Budget(
        float(seconds) if isinstance(seconds, int | float) else float("inf"),
        float(started) if isinstance(started, int | float) else clock.now(),
        clock,
    )
