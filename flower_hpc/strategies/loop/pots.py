"""What the loop holds of models and updates: one version of the model, and the batch for the next."""

from dataclasses import dataclass, field

from flwr.app import ArrayRecord

from ...records import Weights, to_weights
from .acks import Ticket
from .join import Batch


@dataclass(frozen=True)
class Model:
    """One version of the global model: as it travels, as views of the same bytes, and as nodes get it.

    Parameters
    ----------
    sent : Weights
        What nodes start from: the same, unless changes that travel with loss have led them elsewhere.
    """

    version: int
    record: ArrayRecord
    weights: Weights
    sent: Weights

    @classmethod
    def of(cls, record: ArrayRecord, version: int = 0, sent: Weights | None = None) -> "Model":
        """A record as a model."""
        weights = to_weights(record)
        return cls(version, record, weights, weights if sent is None else sent)


@dataclass
class Pot:
    """A batch, and how many updates it has."""

    batch: Batch
    joined: int = 0
    late: int = 0
    counted: int = 0
    """Updates that weigh anything."""
    tickets: list[Ticket] = field(default_factory=list)
    """Of updates whose nodes want to know what becomes of them."""
