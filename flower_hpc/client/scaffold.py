"""SCAFFOLD's client half (Karimireddy et al. 2020, https://arxiv.org/abs/1910.06378), option II."""

from typing import Self

import numpy as np
from flwr.app import ConfigRecord, Context, Message

from ..errors import ConfigError, ReplyError
from ..protocol import CONTROL, RECEIVED, TICKET, WAITING, config_of, texts
from ..records import Weights, from_bytes, is_inexact, to_bytes, to_record, to_weights

NEW, NOTE = f"{CONTROL}.new", f"{CONTROL}.note"  # in the state: what the server has not confirmed yet


class Control:
    """The control variates of one train message: the server's ``c`` and this node's ``c_i``.

    They have the names, shapes and dtypes of the model's floating-point arrays. Entries of buffers (BatchNorm
    statistics) come along, but only parameters have gradients to correct.

    Parameters
    ----------
    server, own : Weights
        ``c`` and ``c_i``, of the same arrays.
    context : Context
        Whose state keeps ``c_i`` from round to round.
    ticket : str
        Of the message; where there is one, ``c_i`` moves only once the server has taken the reply.

    Attributes
    ----------
    correction : Weights
        ``c - c_i``; add it to each gradient.
    """

    def __init__(self, server: Weights, own: Weights, context: Context, ticket: str = "") -> None:
        self._server, self._own, self._context, self._ticket = server, own, context, ticket
        self._change: Weights | None = None
        self.correction: Weights = {k: c - own[k] for k, c in server.items()}

    @classmethod
    def of(cls, message: Message, context: Context) -> Self | None:
        """The control variates of a message, or None if it has none; ``c_i`` starts at zero.

        Raises
        ------
        ConfigError
            What the message holds does not fit the message's model.
        """
        data = config_of(message).get(CONTROL)
        if data is None:
            return None
        model = to_weights(next(iter(message.content.array_records.values())))
        like = {k: x for k, x in model.items() if is_inexact(x)}
        try:
            server = from_bytes(data if isinstance(data, bytes) else b"", like)
        except ReplyError as error:
            raise ConfigError(f"{CONTROL} must hold the server's control variate, {error}") from error
        settle(context, config_of(message))
        kept = context.state.array_records.get(CONTROL)
        own = {k: np.zeros_like(x) for k, x in like.items()} if kept is None else to_weights(kept)
        if {k: x.shape for k, x in own.items()} != {k: x.shape for k, x in like.items()}:
            raise ConfigError(
                f"{CONTROL} in the node's state must be of the model's arrays, got {sorted(own)}"
            )
        return cls(server, own, context, str(config_of(message).get(TICKET, "")))

    def update(self, start: Weights, end: Weights, lr: float, effective_steps: float) -> None:
        """Take in a training: ``c_i+ = c_i - c + (x - y) / (steps * lr)`` (equation 4, option II).

        Parameters
        ----------
        start, end : Weights
            ``x`` and ``y_i``: the model before and after; other arrays than the control's are left out.
        lr : float
            Local learning rate, > 0.
        effective_steps : float
            Optimizer steps, > 0; with momentum :func:`effective_steps` of them.

        Raises
        ------
        ConfigError
            ``lr`` or ``effective_steps`` not above 0.
        """
        if not lr > 0 or not effective_steps > 0:
            raise ConfigError(f"lr and effective_steps must be > 0, got {lr!r} and {effective_steps!r}")
        scale = float(lr) * float(effective_steps)
        self._change = {
            k: ((start[k] - end[k]) / scale - c).astype(c.dtype, copy=False) for k, c in self._server.items()
        }
        own = {k: c + self._change[k] for k, c in self._own.items()}
        # a training that diverged must not spoil the rounds to come; the server refuses its reply
        if all(np.isfinite(x).all() for x in own.values()):
            # with a ticket only once the server says that the reply came
            self._context.state[NEW if self._ticket else CONTROL] = to_record(own)
            self._context.state[NOTE] = ConfigRecord({TICKET: self._ticket})

    def attach(self, reply: Message) -> None:
        """Send the change ``c_i+ - c_i`` with a reply, as bytes in a ConfigRecord ``flower-hpc.control``.

        Raises
        ------
        ConfigError
            There was no :meth:`update`.
        """
        if self._change is None:
            raise ConfigError("a control's update must come before attach")
        reply.content[CONTROL] = ConfigRecord({CONTROL: to_bytes(self._change), TICKET: self._ticket})


def settle(context: Context, config: ConfigRecord) -> None:
    """Take over the variate of the last training if the message says that its reply came, else forget it."""
    new = context.state.array_records.get(NEW)
    note = context.state.config_records.get(NOTE)
    if new is None or note is None:
        return
    if note[TICKET] in texts(config.get(RECEIVED)) + texts(config.get(WAITING)):
        context.state[CONTROL] = new
    del context.state[NEW]
