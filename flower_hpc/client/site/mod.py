"""The mod that makes a SuperNode answer for its site."""

import logging
import math
import os
from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import Context, Message, MessageType
from flwr.clientapp.typing import ClientAppCallable

from ...clock import WALL, Clock
from ...errors import ConfigError
from ...protocol import CONTROL, MPI_ENV, NODE_STATE_ENV, NUM_EXAMPLES, WEIGHT_KEY, config_of
from ..budget import budget_of
from ..parcel import Order
from .options import SiteOptions

LOG = logging.getLogger("flwr.hpc")  # below Flower's own logger


@dataclass(frozen=True)
class AsSite:
    """Mod that has the rest of the app done by the site's own clients, and answers with their weighted mean.

    ``ClientApp(mods=[CompressUpdates(), AsSite(), KeepBudget()])``: what stands before it is done once for
    the site, what comes after it in each client. Does nothing where the environment variable
    ``FLOWER_HPC_MPI`` is not set, as a site's ``mpi:`` in a federation.yaml sets it.

    The reply has the names, dtypes and shapes of one client's. Its weight is the sum of theirs, other metrics
    are their weighted means. Clients that fail, or whose reply a server would refuse, are left out, logged,
    and counted in ``site-failed`` where the server is one of this package.

    Parameters
    ----------
    weight : str
        The metric that weighs a reply, as the strategy's ``weighted_by_key``; default ``num-examples``.
        Servers of this package say it themselves.
    clock : Clock
        Of the budget; default the wall clock.

    Raises
    ------
    ConfigError
        When called: a message that cannot be answered by a mean, or what the variable holds.
    JobFailed
        When called: the site's job ended, or no client answered.
    """

    weight: str = NUM_EXAMPLES
    clock: Clock = field(default=WALL, compare=False)

    def __call__(self, msg: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Answer ``msg`` by the site's clients, if there are any."""
        text = os.environ.get(MPI_ENV)
        if not text:
            return call_next(msg, context)
        from .ask import ask  # a node that is no site should not pay for it with every message
        from .call import Call

        options = SiteOptions.read(text)
        check(msg, options)
        left = budget_of(msg, self.clock).left()
        now = self.clock.wall()
        config = config_of(msg)
        call = Call(
            order=Order.of(call_next, now, now + left if math.isfinite(left) else None),
            kind=msg.metadata.message_type,
            content=msg.content,
            ttl=msg.metadata.ttl,
            run_id=context.run_id,
            run_config=dict(context.run_config),
            node_config=dict(context.node_config),
            weight=str(config.get(WEIGHT_KEY, self.weight)),
        )
        said = ask(options, folder(), call, self.clock)
        for words in said.failed:
            LOG.warning("left out of the site's reply: %s", words)
        assert said.content is not None
        return Message(said.content, reply_to=msg)


def check(msg: Message, options: SiteOptions) -> None:
    """Refuse what no mean over clients can answer."""
    kind = msg.metadata.message_type.partition(".")[0]
    if kind not in (MessageType.TRAIN, MessageType.EVALUATE):
        raise ConfigError(f"a site as one node answers train and evaluate messages, got {kind!r}")
    if options.together:
        return
    if CONTROL in config_of(msg):
        raise ConfigError(
            "a site as one node cannot take part in SCAFFOLD: control variates belong to single clients"
        )
    if kind == MessageType.TRAIN and (count := len(msg.content.array_records)) != 1:
        raise ConfigError(f"a site as one node takes messages with 1 ArrayRecord, the model, got {count}")


def folder() -> Path:
    """The node's own."""
    found = os.environ.get(NODE_STATE_ENV)
    if not found:
        raise ConfigError(f"{NODE_STATE_ENV} must be a folder of the node's own where {MPI_ENV} is set")
    return Path(found).absolute()
