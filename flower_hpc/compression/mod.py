"""Client half of sending updates: subtract the model that came in, compress, mark the reply; if asked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MessageType
from flwr.clientapp.typing import ClientAppCallable

from ..errors import ConfigError
from ..protocol import (
    COMPRESSION,
    MOVING,
    NODE_NAME,
    RECEIVED,
    REPLY_AS,
    RUN,
    RUN_KEY,
    TICKET,
    UPDATE,
    VERSION,
    WAITING,
    WEIGHTS,
    Mark,
    config_of,
    texts,
    write_mark,
)
from ..records import Weights, records_of, subtract, to_record, to_weights
from .download import is_plain, read_model
from .feedback import Feedback
from .keeping import MAX_GB, Keeping
from .options import Compression
from .update import Seed, encode_update

RESIDUAL = "residual"


@dataclass(frozen=True)
class CompressUpdates:
    """The outermost mod of a ClientApp: replies with a compressed ``local - received`` when asked for it.

    The app itself goes on getting and sending full weights. A server that does not ask (any Flower strategy)
    gets them as they are. Put it first, so that clipping and noise act on what the app learnt and not on what
    a codec left: ``ClientApp(mods=[CompressUpdates(), <clipping, DP>, KeepBudget()])``.

    Parameters
    ----------
    how : Compression, Codec or str, optional
        How updates travel, for a node that wants another way than the server's; default: as the server asks.
    max_gb : float
        The most that a node's runs may keep on its disk, > 0; default 20.

    Raises
    ------
    ConfigError
        A value that cannot work.
    """

    how: object = None
    max_gb: float = MAX_GB

    def __post_init__(self) -> None:
        if self.how is not None:
            object.__setattr__(self, "how", Compression.of(self.how))
        if not isinstance(self.max_gb, int | float) or not self.max_gb > 0:
            raise ConfigError(f"max_gb must be a number > 0, got {self.max_gb!r}")

    def __call__(self, msg: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Answer ``msg``, as an update if it asks for one."""
        # what the message asks is read first: the app may change the message
        config = dict(config_of(msg))
        wanted, version = config.get(REPLY_AS), config.get(VERSION)
        if wanted is None:
            return call_next(msg, context)
        name = str(context.node_config.get(NODE_NAME, ""))
        run = str(config.get(RUN_KEY) or config.get(RUN) or msg.metadata.run_id)
        keeping = Keeping(name or str(context.node_id), run, context, self.max_gb)
        base, holds = None, None
        if len(sent := records_of(msg.content, ArrayRecord)) == 1:
            ((key, record),) = sent.items()
            if is_plain(record, config):
                base = to_weights(record)
            else:
                base, holds = read_model(record, config, keeping)
                msg.content[key] = to_record(base)
        reply = call_next(msg, context)
        if reply.has_error():
            return reply

        form, ticket = WEIGHTS, ""
        trained = msg.metadata.message_type == MessageType.TRAIN
        # anything but one model there and one back is for the server to judge
        made = records_of(reply.content, ArrayRecord)
        if wanted == UPDATE and trained and base is not None and len(made) == 1:
            ((key, local),) = made.items()
            update = difference(to_weights(local), base)
            if update is not None:
                reply.content[key], ticket = self._compress(update, config, keeping)
                form = UPDATE
        number = version if isinstance(version, int) else None
        write_mark(reply, Mark(form, number, name, ticket, decodes=True, holds=holds))
        return reply

    def _compress(
        self, update: Weights, config: Mapping[str, Any], keeping: Keeping
    ) -> tuple[ArrayRecord, str]:
        how, text = self.how, config.get(COMPRESSION)
        if not isinstance(how, Compression):
            how = Compression.answer(text) if isinstance(text, str) else Compression()
        if not all(np.isfinite(x).all() for x in update.values()):
            return to_record(update), ""  # for the server to refuse; nothing of it is kept
        ticket, common = str(config.get(TICKET, "")), f"{config.get(RUN)}/{config.get(VERSION)}"
        seed = Seed(f"{common}/{keeping.node}", common)
        # where other coordinates are trained in each round, what is kept would be added to the wrong ones
        useful = how.feedback and ticket and config.get(MOVING) is not True
        kept = keeping.load(RESIDUAL) if useful else None
        if not useful or (kept is None and not how.remembers):  # an earlier codec may have left something
            return encode_update(update, how, seed), ""
        feedback = Feedback.of(kept)
        feedback.hear(texts(config.get(RECEIVED)), texts(config.get(WAITING)))
        record = feedback.send(update, how, ticket, seed)
        saved = keeping.save(RESIDUAL, feedback.to_tree())
        return record, ticket if saved else ""


def difference(new: Weights, base: Weights) -> Weights | None:
    """The update from ``base`` to ``new``; None where they are not of one model."""
    if {k: (x.shape, x.dtype) for k, x in new.items()} != {k: (x.shape, x.dtype) for k, x in base.items()}:
        return None
    return subtract(new, base)
