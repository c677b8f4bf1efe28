"""Tell the server what this node is: its resources, and when it received and answered a message."""

from collections.abc import Sequence
from dataclasses import dataclass

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable, Mod

from ..clock import WALL, Clock
from ..compression import CompressUpdates
from ..errors import ConfigError
from ..protocol import (
    PROFILE,
    PROFILE_QUERY,
    RECEIVED_WALL,
    REPLIED_WALL,
    SERVER_ROUND,
    WANT_PROFILE,
    config_of,
)
from .machine import Facts, measure

_MEASURED = "measured-in-round"


@dataclass(frozen=True)
class ReportProfile:
    """Mod that adds a ConfigRecord ``flower-hpc.profile`` to the replies that the server wants it in.

    It holds the node's wall times (``received-wall``, ``replied-wall``, seconds since the epoch) and, where
    ``flower-hpc.want-profile`` is true, what :func:`measure` returns and ``label.<name>`` for each label.
    Put it right after ``CompressUpdates``; :class:`ProfiledApp` does.

    Parameters
    ----------
    every : int
        Measure anew after so many rounds, >= 1; default 20. Until then the values of the last time count.
    labels : tuple of str
        Keys of node-config to report, where the node has them; default ``site``.
    clock : Clock
        Of the wall times.

    Raises
    ------
    ConfigError
        ``every`` below 1, or ``labels`` that are no tuple of names.
    """

    every: int = 20
    labels: tuple[str, ...] = ("site",)
    clock: Clock = WALL

    def __post_init__(self) -> None:
        if not isinstance(self.every, int) or self.every < 1:
            raise ConfigError(f"every must be a whole number >= 1, got {self.every!r}")
        if not isinstance(self.labels, tuple) or not all(isinstance(x, str) for x in self.labels):
            raise ConfigError(f"labels must be a tuple of names, got {self.labels!r}")

    def __call__(self, msg: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Answer ``msg``, with the profile if it asks for it; a profile query is answered here."""
        received = self.clock.wall()
        config = config_of(msg) if msg.has_content() else ConfigRecord()
        query = msg.metadata.message_type == PROFILE_QUERY
        wanted = True if query else config.get(WANT_PROFILE)
        # measured before the work, which would take the cores and the memory
        facts = self._facts(context, config.get(SERVER_ROUND)) if wanted else {}
        # not passed on: Flower's clipping mods refuse a message without a model
        reply = Message(RecordDict(), reply_to=msg) if query else call_next(msg, context)
        if wanted is None or reply.has_error():
            return reply
        times = {RECEIVED_WALL: received, REPLIED_WALL: self.clock.wall()}
        reply.content[PROFILE] = ConfigRecord({**facts, **times})
        return reply

    def _facts(self, context: Context, number: object) -> Facts:
        known = context.state.get(PROFILE)
        if not isinstance(known, ConfigRecord) or self._is_old(known, number):
            # in the state: Flower starts a process per message
            known = ConfigRecord({**measure(), _MEASURED: number if isinstance(number, int) else 0})
            context.state[PROFILE] = known
        facts: Facts = {k: v for k, v in known.items() if isinstance(v, int | float | str) and k != _MEASURED}
        labels = {f"label.{k}": context.node_config[k] for k in self.labels if k in context.node_config}
        return facts | labels

    def _is_old(self, known: ConfigRecord, number: object) -> bool:
        measured = known.get(_MEASURED)
        return isinstance(number, int) and isinstance(measured, int) and number - measured >= self.every


class ProfiledApp(ClientApp):
    """A ClientApp that reports its node's profile: ``ProfiledApp(mods=[CompressUpdates(), KeepBudget()])``.

    It also answers the query ``flower_hpc_profile``, with the profile alone.

    Parameters
    ----------
    mods : sequence of Mod
        As a ClientApp's. A :class:`ReportProfile` is put after a leading ``CompressUpdates``, else first,
        unless there is one already.
    """

    def __init__(self, *, mods: Sequence[Mod] = ()) -> None:
        own = list(mods)
        if not any(isinstance(mod, ReportProfile) for mod in own):
            own.insert(1 if own and isinstance(own[0], CompressUpdates) else 0, ReportProfile())
        super().__init__(mods=own)
        # only the route: the mod answers before a message comes this far
        self.query(PROFILE_QUERY.partition(".")[2])(lambda msg, _: Message(RecordDict(), reply_to=msg))
