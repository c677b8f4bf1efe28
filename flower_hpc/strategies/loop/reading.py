"""From a message to a reply that can be counted: what the settings ask of it, on top of its being sound."""

from flwr.app import Message

from ...errors import ReplyError
from ...mean import metric
from ...protocol import EFFECTIVE_STEPS, NUM_STEPS
from ...records import Weights
from ..ledger import Usual
from ..options import Settings
from .collect import Flight
from .log import LOG
from .replies import Reply, read_reply
from .submodels import Submodels


class Reader:
    """Reads the train replies of a run.

    Parameters
    ----------
    settings : Settings
        Of the run.
    submodels : Submodels or None
        Which part of the model a node was sent.
    """

    def __init__(self, settings: Settings, submodels: Submodels | None) -> None:
        self._settings, self._submodels = settings, submodels
        self._uncompressed: set[str] = set()

    def read(
        self, message: Message, flight: Flight, model: Weights, base: Weights | None, usual: Usual
    ) -> Reply:
        """Check and unpack a reply.

        Parameters
        ----------
        model : Weights
            What the full model looks like.
        base : Weights or None
            What nodes of the flight's version started from, where that is still known.

        Raises
        ------
        ReplyError
            Whatever is wrong with it, in one line.
        """
        settings, parts = self._settings, self._submodels
        try:
            like, accept = parts.like(flight) if parts else model, settings.compression.accept
            reply = read_reply(message, like, flight.version, settings.weighting, usual, accept)
            if settings.normalise_steps and self.steps(reply) == 0:
                raise ReplyError(f"its {NUM_STEPS!r} is 0, must be > 0")
            if settings.compression.up.stages and not reply.is_update:
                self._tell(flight.node.name)
            if parts:
                wide = parts.widen(reply.arrays, reply.is_update, flight, base)
                reply = Reply(dict(wide), True, reply.weight, reply.metrics)
            return reply
        except ReplyError:
            raise
        except Exception as error:  # hostile bytes may break any parser: that is the node's fault
            raise ReplyError(f"it cannot be read: {type(error).__name__}: {error}") from error

    def _tell(self, node: str) -> None:
        if node not in self._uncompressed:
            self._uncompressed.add(node)
            LOG.warning("node %s sends full weights: its app lacks the mod CompressUpdates", node)

    def steps(self, reply: Reply) -> float:
        """What the reply's update is divided by; 1 unless steps are normalised."""
        if not self._settings.normalise_steps:
            return 1.0
        key = EFFECTIVE_STEPS if EFFECTIVE_STEPS in reply.metrics else NUM_STEPS
        return metric(reply.metrics, key)
