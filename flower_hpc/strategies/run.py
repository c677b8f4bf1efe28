"""One run of the loop: what ``HybridStrategy.start`` calls, step by step, and the state between the steps."""

import math
import random
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from ..clock import WALL, Clock
from ..errors import ConfigError, FlowerHpcError, RunError
from ..protocol import DEADLINE_S, REPLY_AS, RUN, UPDATE, VERSION
from ..records import num_bytes, to_weights
from ..telemetry import EventLog, read_events, save_result
from .collect import Collector, Flight, Online
from .cutoff import Progress
from .inner import GridView, minimum_nodes, sampled_clients
from .intake import Intake
from .ledger import Ledger
from .messages import message_bytes, outgoing
from .options import Settings
from .outcomes import LOG, Outcomes
from .work import ConfigValue

TRAIN, EVALUATE = MessageType.TRAIN, MessageType.EVALUATE
MIN_LOST_AFTER_S, LOST_AFTER_DURATIONS = 3600.0, 10


class Run:
    """The state of one run; a context manager that polls from beginning to end.

    Parameters
    ----------
    settings : Settings
        The policies.
    hooks : Strategy
        Configures messages and joins evaluations (the strategy itself).
    grid, initial_arrays, timeout
        As in ``Strategy.start``.
    """

    def __init__(
        self, settings: Settings, hooks: Strategy, grid: Grid, initial_arrays: ArrayRecord, timeout: float
    ) -> None:
        self.settings, self._hooks, self._grid, self._timeout = settings, hooks, grid, timeout
        self.clock: Clock = getattr(grid, "clock", WALL)
        self.events = EventLog(settings.run_dir, self.clock)
        self.intake = Intake(settings, initial_arrays, self.events)
        self.ledger = Ledger()
        self.result = Result(arrays=initial_arrays)
        self._outcomes = Outcomes(self.intake, self.ledger, self.events, self.clock)
        self._collector = Collector(grid, self.clock, self._outcomes)
        self._rng = random.Random(settings.seed)
        self._number = self._failed_rounds = 0
        self._skipped = ""
        self._started = self._round_started = self.clock.now()

    def __enter__(self) -> Self:
        """Begin to poll, and to record."""
        strategy, size = type(self._hooks).__name__, num_bytes(self.result.arrays)
        self.events.write("run_started", run=self.settings.run_name, strategy=strategy, bytes_model=size)
        self._collector.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop polling; save the result and the model, also those of a run that failed."""
        self._collector.__exit__(kind, error, trace)
        seconds = round(self.clock.now() - self._started, 3)
        in_flight = sorted(f.node.name for f in self._collector.flights.values())
        if error is None:
            self.events.write("run_finished", seconds=seconds, in_flight=in_flight)
        else:
            code = error.exit_code if isinstance(error, FlowerHpcError) else 1
            words = str(error) or type(error).__name__
            self.events.write("run_failed", seconds=seconds, error=words, exit_code=code)
        self.result.arrays = self.intake.model.record
        if self.events.path is not None and self.events.folder is not None:
            save_result(self.events.folder, read_events(self.events.path), self.result.arrays)

    def begin(self, number: int, num_rounds: int) -> None:
        """Open a round."""
        self._number, self._round_started = number, self.clock.now()
        LOG.info("")
        LOG.info("[ROUND %s/%s]", number, num_rounds)
        online, busy = len(self._collector.online), len(self._collector.busy())
        self.events.write("round_started", round=number, of=num_rounds, online=online, busy=busy)
        with self._collector.lock:
            self.intake.open(number)
            self._outcomes.evaluations = []

    def select(self) -> list[Online]:
        """Choose among the idle nodes, once there are enough; none = the round is skipped."""
        settings = self.settings
        inner = settings.inner
        fewest = 1 if inner is None else max(minimum_nodes(inner, "train"), sampled_clients(inner) or 0)

        def enough() -> bool:
            online, candidates = self._collector.online, self._candidates()
            return len(online) >= max(settings.min_nodes, fewest) and len(candidates) >= fewest

        if not self._collector.wait(enough, self.clock.now() + settings.node_wait_s):
            idle, online = len(self._candidates()), len(self._collector.online)
            need = f"{settings.min_nodes} online" + (f" and {fewest} idle" if fewest > 1 else "")
            self._skip(f"{online} nodes online, {idle} idle after {settings.node_wait_s:g} s; needs {need}")
            return []
        candidates = self._candidates()
        sound = [n for n in candidates if not self.ledger.suspect(n.name)]
        probes = [n for n in candidates if self.ledger.suspect(n.name)]
        chosen = settings.selection.choose(sound, len(self._collector.online), self._rng)
        if inner is not None and len(chosen) + len(probes) < fewest:
            raise ConfigError(
                f"selection chose {len(chosen)} nodes, {type(inner).__name__} wants at least {fewest}"
            )
        return chosen + probes

    def configure(self, nodes: Sequence[Online], config: ConfigRecord) -> list[Message]:
        """Assign work: the strategy's own messages for these nodes."""
        view = self._view(nodes)
        # a copy: strategies write the round into the caller's record
        messages = self._hooks.configure_train(
            self._number, self.intake.model.record, ConfigRecord(dict(config)), view
        )
        return list(messages)

    def dispatch(self, nodes: Sequence[Online], messages: Sequence[Message], kind: str) -> list[Flight]:
        """Send, each with what the round asks of its node."""
        known, model, lost_after = {n.node_id: n for n in nodes}, self.intake.model, self._lost_after_s()
        asks: dict[str, ConfigValue] = {RUN: self.settings.run_name, VERSION: model.version, REPLY_AS: UPDATE}
        if kind == TRAIN:
            asks[DEADLINE_S] = self._budget_s(lost_after)
        packed = []
        for message in messages:
            node = known.get(message.metadata.dst_node_id)
            if node is None:
                raise RunError(f"a message goes to {message.metadata.dst_node_id}, not a node of this round")
            work = self.settings.work.assign(node.name) if kind == TRAIN else {}
            new = outgoing(message, asks | dict(work), lost_after, self._number)
            flight = Flight(node, kind, self._number, model.version, lost_after)
            flight.bytes_down, flight.awaited = message_bytes(new), not self.ledger.suspect(node.name)
            packed.append((new, flight))
        if not any(flight.awaited for _, flight in packed):
            for _, flight in packed:
                flight.awaited = True
        sent = self._collector.send(packed)
        for flight in sent:
            facts = {"node": flight.node.name, "bytes_down": flight.bytes_down, "version": flight.version}
            self.events.write("sent", round=self._number, kind=kind, **facts)
            if self.ledger.suspect(flight.node.name):
                self.ledger.probed(flight.node.name, self.clock.now())
        return sent

    def collect(self, sent: Sequence[Flight]) -> None:
        """Wait for the replies until the round is cut, and a little longer for the fewest that it needs."""
        intake, cutoff = self.intake, self.settings.cutoff
        asked, dispatched = sum(f.awaited for f in sent), self.clock.now()

        def reason() -> str | None:
            waiting = len(self._collector.waiting(TRAIN, self._number))
            elapsed = self.clock.now() - dispatched
            return (
                "every node answered or is gone"
                if waiting == 0
                else cutoff.reason(Progress(asked, intake.fresh, waiting, elapsed))
            )

        self._collector.wait(lambda: reason() is not None, dispatched + self._due_s())
        with self._collector.lock:
            why = reason() or f"timeout {self._timeout:g} s"
        self._collector.wait(
            lambda: intake.short() is None or not self._collector.waiting(TRAIN),
            self.clock.now() + self.settings.grace_s,
        )
        with self._collector.lock:
            intake.close()
            waiting = sorted(f.node.name for f in self._collector.waiting(TRAIN, self._number))
        due_s = self._due_s()
        self.events.write(
            "cut",
            round=self._number,
            kind=TRAIN,
            reason=why,
            due_s=due_s if math.isfinite(due_s) else None,
            waiting=waiting,
        )
        LOG.info("cut: %s; %s in, still under way: %s", why, intake.fresh, ", ".join(waiting) or "none")

    def aggregate(self) -> None:
        """Make the next model of what came, late updates among it."""
        with self._collector.lock:
            short, joined, late = self.intake.short(), self.intake.joined, self.intake.late
            if short is None:
                batch = self.intake.begin_aggregate()
            else:
                self.intake.drop()
        if short is not None:
            self._skip(short)
            return
        record, metrics = batch.join(self._number, self.intake.model.weights)
        sound = record is not None and all(np.isfinite(x).all() for x in to_weights(record).values())
        with self._collector.lock:
            if record is not None and sound:
                versions = {f.version for f in self._collector.flights.values() if f.kind == TRAIN}
                self.intake.publish(record, versions)
            else:
                self.intake.give_up()
        if not sound:
            self._skip("the replies could not be joined" if record is None else "their mean is not finite")
            return
        self._failed_rounds = 0
        if metrics is not None:
            self.result.train_metrics_clientapp[self._number] = metrics
        version = self.intake.model.version
        self.events.write("aggregated", round=self._number, version=version, replies=joined, late=late)
        LOG.info("aggregated %s updates, %s of them late: model version %s", joined, late, version)

    def evaluate_on_nodes(self, config: ConfigRecord) -> None:
        """Federated evaluation on idle nodes, cut as the training is; late evaluations are dropped."""
        nodes, inner = self._candidates(), self.settings.inner
        if inner is None:
            count = int(self.settings.fraction_evaluate * len(nodes) + 1e-9)
            nodes = self._rng.sample(nodes, count)
        if not nodes or (inner is not None and len(nodes) < minimum_nodes(inner, "evaluate")):
            return
        view = self._view(nodes)
        record = ConfigRecord(dict(config))
        messages = self._hooks.configure_evaluate(self._number, self.intake.model.record, record, view)
        sent = self.dispatch(nodes, list(messages), EVALUATE)
        if not sent:
            return
        cutoff, dispatched = self.settings.cutoff, self.clock.now()

        def done() -> bool:
            waiting = len(self._collector.waiting(EVALUATE, self._number))
            elapsed = self.clock.now() - dispatched
            progress = Progress(len(sent), len(self._outcomes.evaluations), waiting, elapsed)
            return waiting == 0 or cutoff.reason(progress) is not None

        self._collector.wait(done, dispatched + self._due_s())
        with self._collector.lock:
            replies, self._outcomes.evaluations = self._outcomes.evaluations, []
        if replies and (metrics := self._hooks.aggregate_evaluate(self._number, replies)) is not None:
            self.result.evaluate_metrics_clientapp[self._number] = metrics
            self.events.write("evaluated", round=self._number, where="nodes", metrics=dict(metrics))

    def evaluate_centrally(
        self, number: int, evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None
    ) -> None:
        """Evaluate on the server, where the caller can."""
        if evaluate_fn is None:
            return
        metrics = evaluate_fn(number, self.intake.model.record)
        if metrics is not None:
            self.result.evaluate_metrics_serverapp[number] = metrics
            self.events.write("evaluated", round=number, where="server", metrics=dict(metrics))
            LOG.info("evaluated: %s", dict(metrics))

    def end(self) -> None:
        """Close the round; too many bad ones in a row end the run."""
        seconds = round(self.clock.now() - self._round_started, 3)
        self.events.write("round_finished", round=self._number, seconds=seconds)
        if self._failed_rounds >= self.settings.max_failed_rounds:
            failure = self._outcomes.last_failure
            words = f"; last failure of a node: {failure}" if failure else ""
            raise RunError(f"{self._failed_rounds} rounds in a row were skipped: {self._skipped}{words}")

    def _skip(self, reason: str) -> None:
        self._failed_rounds += 1
        self._skipped = reason
        self.events.write("round_skipped", round=self._number, reason=reason)
        LOG.warning("round %s is skipped: %s", self._number, reason)

    def _candidates(self) -> list[Online]:
        now = self.clock.now()
        idle = [n for n in self._collector.idle() if not self.ledger.resting(n.name, now)]
        return sorted(idle, key=lambda n: (n.name, n.node_id))

    def _view(self, nodes: Sequence[Online]) -> GridView:
        return GridView(self._grid, [NodeInfo(node_id=n.node_id, name=n.name) for n in nodes])

    def _due_s(self) -> float:
        return min(self.settings.cutoff.due_s(), self._timeout)

    def _lost_after_s(self) -> float:
        if self.settings.lost_after_s is not None:
            return self.settings.lost_after_s
        return max(MIN_LOST_AFTER_S, LOST_AFTER_DURATIONS * self.ledger.slowest_s())

    def _budget_s(self, lost_after: float) -> float:
        # work that would be discarded ends at the cut; else it is worth finishing
        discards = self.settings.worth.weight(1) == 0
        return min(self._due_s(), lost_after) if discards else lost_after
