"""What a message's process says to the site's rank 0, and what it hears."""

from collections.abc import Mapping
from dataclasses import dataclass

from flwr.app import RecordDict

from ..parcel import Order

Scalar = bool | int | float | str


@dataclass(frozen=True)
class Call:
    """A message for the site's clients, and the app that answers it there.

    Parameters
    ----------
    order : Order
        The app, where its modules are, and when the budget ends.
    kind : str
        The message's type.
    content : RecordDict
        The message's.
    ttl : float
        The message's.
    run_id : int
        Of the run, under which clients keep what they keep.
    run_config, node_config : mapping
        The node's.
    weight : str
        The metric that weighs a reply.
    """

    order: Order
    kind: str
    content: RecordDict
    ttl: float
    run_id: int
    run_config: Mapping[str, Scalar]
    node_config: Mapping[str, Scalar]
    weight: str


@dataclass(frozen=True)
class Said:
    """What came of it.

    Parameters
    ----------
    content : RecordDict, optional
        Of the site's reply; missing where there is none.
    error : str
        Why there is none.
    other : bool
        The job serves another app, and ends: the next one will answer.
    failed : tuple of str
        Clients that are not in the reply, and why.
    """

    content: RecordDict | None = None
    error: str = ""
    other: bool = False
    failed: tuple[str, ...] = ()
