"""Rank 0's: one message becomes one for each client, and their replies one."""

import threading
from collections.abc import Callable, Iterable, Sequence

from flwr.app import ConfigRecord, Message, RecordDict

from ...clock import WALL
from ...errors import ConfigError, ReplyError
from ...protocol import NODE_NAME, NUM_PARTITIONS, PARTITION_ID
from ...transport.mpi import MpiGrid
from .call import Call, Said, Scalar
from .inner import HOST, MEET, PORT, TASK, Task
from .merge import Merge

LOOK_S, STRAGGLE_S = 0.5, 10.0


class Fan:
    """The site's clients, as rank 0 asks them.

    Parameters
    ----------
    grid : MpiGrid
        Over the other ranks.
    nodes : int
        How many clients, or with ``together`` ranks of the one.
    ranks : int
        How many ranks share them.
    together : bool
        Whether they train one model.
    """

    def __init__(self, grid: MpiGrid, nodes: int, ranks: int, together: bool) -> None:
        self._grid, self._nodes, self._ranks, self._together = grid, nodes, ranks, together
        self._alive: Callable[[], bool] = lambda: True
        self._news = threading.Event()
        grid.on_reply = self._news.set
        self.stuck = False
        """Whether ranks wait for one that has failed: the job is of no more use."""

    def answer(self, call: Call, alive: Callable[[], bool]) -> Said:
        """The site's reply to a message, or why there is none; ``alive``: whether anybody waits for it."""
        self._alive = alive
        try:
            return self._one(call) if self._together else self._mean(call)
        except (ReplyError, ConfigError) as error:
            return Said(error=str(error))

    def _mean(self, call: Call) -> Said:
        merge, started = Merge(call.content, call.kind, call.weight), WALL.now()
        names = [f"client-{index}" for index in range(self._nodes)]
        for index, reply in self._ask(
            call, [inner(call, i, self._nodes, self._ranks) for i in range(self._nodes)]
        ):
            merge.add(names[index], reply)
        return Said(merge.result(WALL.now() - started), failed=tuple(merge.failed))

    def _one(self, call: Call) -> Said:
        same = call.order, call.run_id, call.run_config, dict(call.node_config)
        tasks = [Task(*same, variables=each) for each in self._meet(call)]
        first: RecordDict | None = None
        failed: list[str] = []
        for index, reply in self._ask(call, tasks, lambda: bool(failed)):
            if reply.has_error():
                failed.append(f"rank {index} of {self._nodes}: {reply.error.reason}")
            elif index == 0:
                first = reply.content
        if failed or first is None:
            raise ReplyError(f"ranks that train together have failed; {failed[0] if failed else 'no reply'}")
        return Said(first)

    def _meet(self, call: Call) -> list[dict[str, str]]:
        """The variables that torchrun would set, for each rank."""
        asked = self._messages(call.ttl, MEET, [RecordDict({TASK: ConfigRecord()})] * self._nodes)
        places: dict[int, ConfigRecord] = {}
        for index, reply in self._replies(asked):
            if reply.has_error():
                raise ReplyError(f"rank {index} of {self._nodes}: {reply.error.reason}")
            places[index] = reply.content.config_records[TASK]
        return variables([str(places[i][HOST]) for i in range(self._nodes)], str(places[0][PORT]))

    def _ask(
        self, call: Call, tasks: Sequence[Task], hurry: Callable[[], bool] = lambda: False
    ) -> Iterable[tuple[int, Message]]:
        contents = [content_of(call.content, task) for task in tasks]
        return self._replies(self._messages(call.ttl, call.kind, contents), hurry)

    def _messages(self, ttl: float, kind: str, contents: Sequence[RecordDict]) -> dict[str, int]:
        messages = [Message(each, index + 1, kind, ttl=ttl) for index, each in enumerate(contents)]
        return {each: index for index, each in enumerate(self._grid.push_messages(messages))}

    def _replies(
        self, waiting: dict[str, int], hurry: Callable[[], bool] = lambda: False
    ) -> Iterable[tuple[int, Message]]:
        """Each as it comes; with ``hurry`` not much longer once that is so."""
        until: float | None = None
        try:
            while waiting:
                self._news.wait(LOOK_S)
                self._news.clear()
                for reply in self._grid.pull_messages(list(waiting)):
                    yield waiting.pop(str(reply.metadata.reply_to_message_id)), reply
                if not self._alive():
                    raise ReplyError("nobody waits for it any longer")
                if waiting and hurry():
                    until = until or WALL.now() + STRAGGLE_S
                    if WALL.now() > until:
                        self.stuck = True
                        return
        finally:
            self._grid.forget(waiting)


def inner(call: Call, index: int, clients: int, ranks: int) -> Task:
    """What client ``index`` is told: its name, its part of the node's data, its part of the budget."""
    node = call.node_config
    part = int(node.get(PARTITION_ID, 0)) * clients + index
    parts = int(node.get(NUM_PARTITIONS, 1)) * clients
    own: dict[str, Scalar] = {
        NODE_NAME: f"{node.get(NODE_NAME, 'node')}/client-{index}",
        PARTITION_ID: part,
        NUM_PARTITIONS: parts,
    }
    turns = -(-(clients - index) // ranks)
    return Task(call.order, call.run_id, call.run_config, {**node, **own}, turns)


def content_of(content: RecordDict, task: Task) -> RecordDict:
    """A client's message: the same arrays, which then travel once, and a config of its own."""
    records = {
        key: ConfigRecord(dict(each)) if isinstance(each, ConfigRecord) else each
        for key, each in content.items()
    }
    return RecordDict({**records, TASK: task.record()})


def variables(hosts: Sequence[str], port: str) -> list[dict[str, str]]:
    """As torchrun sets them, for ranks on these hosts."""
    first = "127.0.0.1" if len(set(hosts)) == 1 else hosts[0]
    world = str(len(hosts))
    common = {"MASTER_ADDR": first, "MASTER_PORT": port, "WORLD_SIZE": world}
    return [
        {
            **common,
            "RANK": str(rank),
            "LOCAL_RANK": str(hosts[:rank].count(host)),
            "LOCAL_WORLD_SIZE": str(hosts.count(host)),
        }
        for rank, host in enumerate(hosts)
    ]
