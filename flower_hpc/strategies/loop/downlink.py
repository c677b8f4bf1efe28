"""How the global model travels to the nodes: exact, cast or quantised, or as a change to the one they hold.

With changes, all nodes that hold a version hold the same: ``s_0 = w_0`` and, with the codec ``C``,
``s_v = s_(v-1) + D(C(w_v - s_(v-1)))``. What a change loses is part of the next one (error feedback on the
server, as in DoubleSqueeze, Tang et al. 2019, https://arxiv.org/abs/1905.05957), so errors do not pile up.
"""

from dataclasses import dataclass, field

from flwr.app import ArrayRecord

from ...compression import Compression
from ...compression.update import Seed, apply, decode, encode_update
from ...protocol import DELTA_FROM, KEEP_MODEL, Mark
from ...records import Weights, num_bytes, subtract, to_record, to_weights
from ..work import Assignment
from .collect import Online
from .pots import Model


@dataclass
class Downlink:
    """Packs the model for each node.

    Parameters
    ----------
    how : Compression
        Its ``down`` and ``delta``.
    """

    how: Compression
    _steps: dict[int, ArrayRecord] = field(default_factory=dict)
    _holds: dict[str, tuple[str, int]] = field(default_factory=dict)
    _decoders: set[str] = field(default_factory=set)
    _packed: tuple[int, ArrayRecord] | None = None

    def follow(self, old: Model, record: ArrayRecord, version: int) -> Weights | None:
        """What the nodes will hold as ``version``, given what they held before; None: the model itself."""
        if not self.how.delta:
            return None
        weights = to_weights(record)
        step = self._encode(subtract(weights, old.sent), version)
        self._steps[version] = step
        # a chain of changes that is longer than the model is not worth keeping
        whole = sum(x.nbytes for x in weights.values())
        while sum(map(num_bytes, self._steps.values())) > whole:
            del self._steps[min(self._steps)]
        return apply(old.sent, decode(step))

    def pack(self, node: Online, model: Model) -> tuple[ArrayRecord, Assignment]:
        """The arrays for a node, and what its message must say of them."""
        if not self.how.down.stages:
            return model.record, {}
        if not self.how.delta:
            # a node of which nothing is known yet may run any Flower app
            return (self._whole(model) if self.reads(node.name) else model.record), {}
        activated, version = self._holds.get(node.name, ("", -1))
        numbers = range(version + 1, model.version + 1)
        if activated != node.activated or version < 0 or not all(n in self._steps for n in numbers):
            return self._whole(model), {KEEP_MODEL: True}
        steps = {f"{n}/{name}": array for n in numbers for name, array in self._steps[n].items()}
        return ArrayRecord(steps), {KEEP_MODEL: True, DELTA_FROM: version}

    def reads(self, node: str) -> bool:
        """Whether a node has said that it reads codecs."""
        return node in self._decoders

    def learn(self, node: Online, mark: Mark) -> None:
        """Take in what a reply says of its node."""
        if mark.decodes:
            self._decoders.add(node.name)
        if mark.holds is not None:
            self._holds[node.name] = (node.activated, mark.holds)

    def forget(self, node: str) -> None:
        """Something went wrong there: the node gets the whole model next time."""
        self._holds.pop(node, None)

    def restart(self) -> None:
        """After a resume: versions are numbered anew, and nodes may hold others."""
        self._steps, self._holds = {}, {}

    def _whole(self, model: Model) -> ArrayRecord:
        if self._packed is None or self._packed[0] != model.version:
            record = to_record(model.sent) if self.how.delta else self._encode(model.weights, model.version)
            self._packed = (model.version, record)
        return self._packed[1]

    def _encode(self, arrays: Weights, version: int) -> ArrayRecord:
        return encode_update(arrays, self.how.downward, Seed(f"down/{version}"))
