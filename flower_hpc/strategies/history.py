"""What is remembered of one node: how it did, how fast it is, what its updates were like."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from ..protocol import (
    GRADIENT_VARIANCE,
    LOSS_RMS,
    NUM_EXAMPLES,
    NUM_STEPS,
    QUEUE_S,
    TRAIN_LOSS,
    TRAIN_S,
)

SMOOTHING = 0.5  # weight of the newest value: half of what is known is forgotten with each reply
FORGET = 0.9  # of good and bad outcomes, per outcome
FORGET_ROUND = 0.98  # and per round, so that a node that is never asked drifts back to "unknown"
PRIOR_GOOD, PRIOR_BAD = 2.0, 1.0
QUEUES = 50
LARGEST = 1e30
Scalar = bool | int | float | str


@dataclass
class NodeHistory:
    """One node's past; everything in it is a plain value, which a checkpoint can hold."""

    profile: dict[str, Scalar] = field(default_factory=dict)
    """What its own ``ReportProfile`` said; empty for an app without it."""
    queried: bool = False
    """Whether it was asked for its resources before it trained."""
    profiled: int | None = None
    """The round that last asked for them."""
    selected: int = 0
    completed: int = 0
    late: int = 0
    failed: int = 0
    refused: int = 0
    good: float = 0.0
    """Replies that could be used, exponentially forgotten."""
    bad: float = 0.0
    in_a_row: int = 0
    """Failures since the last usable reply."""
    last_round: int = 0
    """The last round that asked it; 0 = never."""
    starts_at: float | None = None
    """When its job is expected to start, in seconds since the epoch; None where it does not wait."""
    leaves: bool = False
    """Its host will be taken away within minutes: what it does is awaited, and it gets nothing new."""
    last_failed: int = 0
    last_empty: int = 0
    """The last round in which its update weighed nothing."""
    worth: float = 0.0
    """Share of a full update that it delivered each time it was asked, exponentially forgotten."""
    asked: float = 0.0
    duration_s: float | None = None
    """Smoothed seconds from a message's dispatch to its reply."""
    duration_var: float = 0.0
    overhead_s: float | None = None
    """Those of them that were no training: queue, transfer, start of a process."""
    step_s: float | None = None
    pace_s: float | None = None
    """Seconds a step with everything around it, FedCompass's speed."""
    full_steps: int | None = None
    """Steps that it does where nobody limits them."""
    examples: float | None = None
    examples_per_s: float | None = None
    watched: dict[str, float] = field(default_factory=dict)
    """Metrics of its last update that the weighting goes by."""
    loss: float | None = None
    loss_rms: float | None = None
    variance: float | None = None
    update_norm: float | None = None
    queues_s: list[float] = field(default_factory=list)
    """The last waits in a batch queue, oldest first."""
    rest_s: float = 0.0
    """How long a suspect rests before its next probe; 0 = not suspect."""
    rest_until: float = 0.0

    @property
    def reliability(self) -> float:
        """Mean of the Beta posterior that a message to it is answered by a usable reply, in (0, 1)."""
        return (self.good + PRIOR_GOOD) / (self.good + self.bad + PRIOR_GOOD + PRIOR_BAD)

    @property
    def inclusion(self) -> float:
        """Expected share of an update that one message to it yields, in (0, 1]; 1 where unknown.

        With ``Discard`` that is the probability of being on time; a late update that is folded in counts
        what it is worth.
        """
        return (self.worth + 1.0) / (self.asked + 1.0)

    @property
    def full_s(self) -> float | None:
        """Expected seconds for all of its own work, also where it has been given less lately."""
        if self.overhead_s is None or self.step_s is None or self.full_steps is None:
            return self.duration_s
        return self.overhead_s + self.step_s * self.full_steps

    def outcome(self, usable: bool, worth: float, number: int) -> None:
        """One message ended."""
        self.good, self.bad = FORGET * self.good + usable, FORGET * self.bad + (not usable)
        self.worth, self.asked = FORGET * self.worth + worth, FORGET * self.asked + 1
        self.in_a_row = 0 if usable else self.in_a_row + 1
        if not usable:
            self.last_failed = number

    def took(self, duration_s: float) -> None:
        """A message was answered after so long."""
        old = self.duration_s
        if old is not None:
            off = duration_s - old
            self.duration_var = (1 - SMOOTHING) * (self.duration_var + SMOOTHING * off**2)
        self.duration_s = smooth(old, duration_s)

    def learn(
        self, metrics: Mapping[str, Any], duration_s: float, limited: bool, assigned: int | None = None
    ) -> None:
        """Take in the metrics of a usable train reply.

        ``limited`` where the server set its steps; ``assigned`` is their number,
        for apps that do not report it.
        """
        examples, steps = number_of(metrics.get(NUM_EXAMPLES)), number_of(metrics.get(NUM_STEPS)) or assigned
        train_s, queue_s = number_of(metrics.get(TRAIN_S)), number_of(metrics.get(QUEUE_S))
        if train_s is not None:
            train_s = min(train_s, duration_s)
            self.overhead_s = smooth(self.overhead_s, duration_s - train_s)
        if steps:
            self.pace_s = smooth(self.pace_s, duration_s / steps)
            self.step_s = smooth(self.step_s, (duration_s if train_s is None else train_s) / steps)
            if not limited:
                self.full_steps = max(int(steps), self.full_steps or 0)  # a budget may have ended some early
        if examples is not None:
            self.examples = examples
            if train_s:
                self.examples_per_s = smooth(self.examples_per_s, examples / train_s)
        if queue_s is not None or train_s is not None:
            waited = queue_s if queue_s is not None else duration_s - (train_s or 0.0)
            self.queues_s = [*self.queues_s, waited][-QUEUES:]
        for name, key in (("loss", TRAIN_LOSS), ("loss_rms", LOSS_RMS), ("variance", GRADIENT_VARIANCE)):
            if (value := number_of(metrics.get(key))) is not None:
                setattr(self, name, value)

    def to_json(self) -> dict[str, Any]:
        """As plain values, which no longer change with it."""
        # nothing is deeper than one level: dataclasses.asdict took half a checkpoint's time for 64 nodes
        return {k: v.copy() if isinstance(v, dict | list) else v for k, v in vars(self).items()}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Self:
        """From :meth:`to_json`; what a newer version added starts empty."""
        known = cls.__dataclass_fields__
        return cls(**{k: v for k, v in saved.items() if k in known})


def smooth(old: float | None, new: float) -> float:
    """Exponentially weighted mean."""
    return new if old is None else (1 - SMOOTHING) * old + SMOOTHING * new


def number_of(value: object) -> float | None:
    """What a node says of itself, if it is worth anything: a number in [0, 1e30], whose sums are finite."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LARGEST:
        return None
    return float(value)
