"""Client half of sending updates: subtract the model that came in, mark the reply; only when asked."""

from dataclasses import dataclass

from flwr.app import ArrayRecord, Context, Message, MessageType
from flwr.clientapp.typing import ClientAppCallable

from ..protocol import (
    NODE_NAME,
    REPLY_AS,
    UPDATE,
    VERSION,
    WEIGHTS,
    Mark,
    config_of,
    write_mark,
)
from ..records import subtract, to_weights
from .codec import Codec, Identity, pack


@dataclass(frozen=True)
class SendUpdates:
    """The outermost mod of a ClientApp: replies with ``local - received`` when the server asks for it.

    The app itself goes on replying with full weights. A server that does not ask (any Flower strategy)
    gets them as they are. Put it first: ``ClientApp(mods=[SendUpdates(), <clipping, DP>, KeepBudget()])``.

    Parameters
    ----------
    codec : Codec
        How each array of the update travels; default unchanged.
    """

    codec: Codec = Identity()  # noqa: RUF009  frozen: one value serves all

    def __call__(self, msg: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Answer ``msg``, as an update if it asks for one."""
        # what the message asks is read first: the app may change the message
        config = config_of(msg)
        wanted, version = config.get(REPLY_AS), config.get(VERSION)
        sent = list(msg.content.array_records.values())
        reply = call_next(msg, context)
        if wanted is None or reply.has_error():
            return reply

        form = WEIGHTS
        if wanted == UPDATE and msg.metadata.message_type == MessageType.TRAIN:
            local = reply.content.array_records
            # anything but one model there and one back is for the server to judge
            if len(sent) == 1 and len(local) == 1:
                (key,) = local
                update = self._update(local[key], sent[0])
                if update is not None:
                    reply.content[key] = update
                    form = UPDATE
        name = str(context.node_config.get(NODE_NAME, ""))
        base = version if isinstance(version, int) else None
        write_mark(reply, Mark(form, base, name))
        return reply

    def _update(self, local: ArrayRecord, sent: ArrayRecord) -> ArrayRecord | None:
        new, base = to_weights(local), to_weights(sent)
        if {k: (x.shape, x.dtype) for k, x in new.items()} != {
            k: (x.shape, x.dtype) for k, x in base.items()
        }:
            return None
        return ArrayRecord({k: pack(self.codec, x) for k, x in subtract(new, base).items()})
