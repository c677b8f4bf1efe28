"""What grids that are not Flower's own have in common."""

from abc import abstractmethod
from collections.abc import Iterable
from uuid import uuid4

from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity


class OwnGrid(Grid):
    """Flower's Grid, as far as it does not depend on how messages travel."""

    def __init__(self, run_id: int | None = None) -> None:
        # another grid's messages are not ours
        self._run = Run.create_empty(uuid4().int >> 65 if run_id is None else run_id)
        identify()

    def set_run(self, run: Run) -> None:
        """Set the run."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run; an empty one until it is set."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Make a message."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    @abstractmethod
    def get_nodes(self) -> Iterable[NodeInfo]:
        """The nodes that are online now."""

    def get_node_ids(self) -> Iterable[int]:
        """Their ids."""
        return [node.node_id for node in self.get_nodes()]


def identify() -> None:
    """Say who we are: outside of a Flower process nobody has, and ``Message()`` asks."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1


def name(message: Message) -> str:
    """Give a message an id."""
    message_id: str = uuid4().hex
    message.metadata.__dict__["_message_id"] = message_id
    return message_id


def unknown(message_id: str) -> Message:
    """The reply to a message that nobody has sent."""
    asked = Message(RecordDict(), 1, "train")
    asked.metadata.__dict__["_message_id"] = message_id
    return Message(Error(ErrorCode.MESSAGE_UNAVAILABLE, "no such message"), reply_to=asked)


def raised(error: BaseException, message: Message) -> Message:
    """The reply of a ClientApp that raised: as a SuperNode sends it; the server decides what it means."""
    reason = f"{type(error)}:<'{error}'>"
    return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)
