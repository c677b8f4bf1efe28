"""Any Flower strategy inside our round: it configures the nodes that we chose and joins what they sent."""

from collections.abc import Iterable, Sequence
from typing import Any

from flwr.app import Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from flwr.supercore.run import Run

from ..errors import ConfigError, RunError

MAX_LOOKS = 10


class GridView(Grid):
    """The grid as an inner strategy sees it while it configures a round: the selected nodes and no others.

    Flower's strategies wait in ``sample_nodes``, for ever, while there are fewer nodes than they want. Here
    the nodes are fixed, so more than a few looks can only be such a wait: that is an error.
    """

    def __init__(self, grid: Grid, nodes: Sequence[NodeInfo]) -> None:
        self._grid, self._nodes, self._looks = grid, list(nodes), 0

    def get_nodes(self) -> Iterable[NodeInfo]:
        """The selected nodes."""
        self._looks += 1
        if self._looks > MAX_LOOKS:
            raise RunError(
                f"the inner strategy waits for more than the {len(self._nodes)} nodes of this round; "
                "lower its min_train_nodes, min_evaluate_nodes or min_available_nodes"
            )
        return list(self._nodes)

    def get_node_ids(self) -> Iterable[int]:
        """Their ids."""
        return [node.node_id for node in self.get_nodes()]

    def set_run(self, run: Run) -> None:
        """As the grid."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """As the grid."""
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """As the grid."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Refused: the loop sends."""
        raise RunError("an inner strategy may configure messages, not send them")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Refused: the loop collects."""
        raise RunError("an inner strategy may configure messages, not collect them")

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Refused: the loop sends and collects."""
        raise RunError("an inner strategy may configure messages, not send them")


def layers(strategy: Strategy) -> list[Any]:
    """The strategy and those that it wraps, outermost first."""
    found: list[Any] = [strategy]
    while isinstance(inner := getattr(found[-1], "strategy", None), Strategy):
        found.append(inner)
    return found


def sampled_clients(strategy: Strategy) -> int | None:
    """How many clients a DP wrapper's noise is scaled for; None for any other strategy."""
    return next((s.num_sampled_clients for s in layers(strategy) if hasattr(s, "num_sampled_clients")), None)


def minimum_nodes(strategy: Strategy, kind: str) -> int:
    """The fewest nodes with which it configures a round of ``kind`` (train, evaluate) and does not wait."""
    keys = ("min_available_nodes", f"min_{kind}_nodes")
    wanted = [getattr(s, key, 0) for s in layers(strategy) for key in keys]
    return max([1, *(n for n in wanted if isinstance(n, int))])


def check_inner(inner: Strategy, discards: bool) -> None:
    """Refuse pairs that cannot work."""
    if sampled_clients(inner) is not None and not discards:
        raise ConfigError(
            f"staleness must be Discard() with {type(inner).__name__}: its noise is for fresh updates only"
        )
