"""One run of the loop: what ``HybridStrategy.start`` calls, step by step, and the state between the steps."""

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from ...clock import WALL, Clock
from ...errors import ConfigError, RunError
from ...records import num_bytes, to_weights
from ..cutoff import Cutoff, Progress
from ..inner import minimum_nodes, sampled_clients
from ..options import Settings
from .choosing import Chooser
from .collect import Collector, Flight, Online
from .dispatch import Dispatcher
from .evaluation import EvaluateFn, Evaluation
from .intake import Intake
from .log import LOG
from .outcomes import Outcomes
from .record import Record
from .resume import Savepoint
from .state import RunState

TRAIN = MessageType.TRAIN
DEFAULT_TIMEOUT_S = 3600.0


class Run:
    """The state of one run; a context manager that polls from beginning to end.

    Parameters
    ----------
    settings : Settings
        The policies.
    hooks : Strategy
        Configures messages and joins evaluations (the strategy itself).
    grid, initial_arrays, timeout, train_config, evaluate_config
        As in ``Strategy.start``.
    """

    def __init__(
        self,
        settings: Settings,
        hooks: Strategy,
        grid: Grid,
        initial_arrays: ArrayRecord,
        timeout: float,
        train_config: ConfigRecord | None,
        evaluate_config: ConfigRecord | None,
    ) -> None:
        self.settings, self._hooks, self._timeout = settings, hooks, timeout
        self._configs = (train_config or ConfigRecord(), evaluate_config or ConfigRecord())
        self.clock: Clock = getattr(grid, "clock", WALL)
        self._record = Record(settings, self.clock)
        self.events = self._record.events
        self.state = RunState(self.clock, random.Random(settings.seed))
        self.intake = Intake(settings, initial_arrays, self.events, self.state)
        self.result = Result(arrays=initial_arrays)
        self._outcomes = Outcomes(self.intake, self.state, self.events, settings.facts)
        self._collector = Collector(grid, self.clock, self._outcomes)
        self._dispatcher = Dispatcher(settings, self.state, self.intake, self.events, grid, self._collector)
        self._chooser = Chooser(settings, self.state, self._collector, self._dispatcher)
        self._evaluation = Evaluation(
            settings,
            hooks,
            self.state,
            self.intake,
            self.events,
            self.result,
            self._dispatcher,
            self._collector,
            self._outcomes,
        )
        self._savepoint = Savepoint(
            settings, self.state, self.intake, self._collector, self._outcomes, self.result
        )
        self._cutoff: Cutoff = settings.cutoff
        self._failed_rounds = self._done = 0
        self._skipped, self._begun = "", False
        self._round_started = self.clock.now()

    def __enter__(self) -> Self:
        """Begin to poll, and to record; a run that is resumed goes on from its last checkpoint."""
        with ExitStack() as held:
            held.enter_context(self._record)
            held.push(self._leave)
            self._begin()
            held.enter_context(self._collector)
            self._held = held.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop polling; save the result and the model, also those of a run that failed."""
        self._held.__exit__(kind, error, trace)

    def _begin(self) -> None:
        found = self._savepoint.load() if self.settings.resume else None
        strategy, size = type(self._hooks).__name__, num_bytes(self.intake.model.record)
        self.events.write("run_started", run=self.settings.run_name, strategy=strategy, bytes_model=size)
        self._begun = True
        if found is not None:
            self._done = self.state.round
            self.events.write("run_resumed", **found)
            LOG.info("goes on after round %s, model version %s", self._done, self.intake.model.version)

    def _leave(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.result.arrays = self.intake.model.record
        in_flight = sorted(f.node.name for f in self._collector.flights.values())
        # what a run that was refused has left is not overwritten with a model that it never trained
        self._record.end(error, in_flight, self.result.arrays if self._begun else None)

    @property
    def resumed(self) -> bool:
        """Whether it goes on from a checkpoint."""
        return self._done > 0

    def rounds(self, num_rounds: int) -> Iterator[int]:
        """The rounds to go through, from that of the checkpoint on; RunError if all were in vain."""
        yield from range(max(1, self._done), num_rounds + 1)
        self._record.tally.judge(self.intake.model.version)

    def begin(self, number: int, num_rounds: int) -> bool:
        """Open a round; False where its model is there already, from a checkpoint."""
        LOG.info("")
        LOG.info("[ROUND %s/%s]", number, num_rounds)
        online, busy = len(self._collector.online), len(self._collector.busy())
        if number != self._done:
            self.events.write("round_started", round=number, of=num_rounds, online=online, busy=busy)
        with self._collector.lock:
            self._round_started, self.state.round = self.clock.now(), number
            if number != self._done:
                self.state.ledger.new_round()
            self.intake.open(number)
            self._outcomes.evaluations = []
        return number != self._done

    def select(self) -> list[Online] | None:
        """Choose among the idle nodes, once there are enough; None = the round is skipped."""
        settings, collector = self.settings, self._collector
        inner = settings.inner
        fewest = 1 if inner is None else max(minimum_nodes(inner, "train"), sampled_clients(inner) or 0)
        self._chooser.ask_profiles()

        until = self.clock.now() + settings.node_wait_s
        if not collector.wait(lambda: self._chooser.ready(fewest), until):
            self._skip(self._chooser.shortage(fewest))
            return None
        with collector.lock:
            candidates, self.state.online = self._chooser.candidates(), len(collector.online)
            chosen = self._chooser.choose([n for n in candidates if not self.state.ledger.suspect(n.name)])
            chosen += [n for n in candidates if self.state.ledger.suspect(n.name)]  # probes
        if inner is not None and len(chosen) < fewest:
            raise ConfigError(
                f"selection chose {len(chosen)} nodes, {type(inner).__name__} wants at least {fewest}"
            )
        return chosen

    def configure(self, nodes: Sequence[Online]) -> list[Message]:
        """The strategy's own messages for these nodes."""
        if not nodes:
            return []
        # a copy: strategies write the round into the caller's record
        config, view = ConfigRecord(dict(self._configs[0])), self._dispatcher.view(nodes)
        return list(self._hooks.configure_train(self.state.round, self.intake.model.record, config, view))

    def dispatch(self, nodes: Sequence[Online], messages: Sequence[Message]) -> list[Flight]:
        """Plan when the round ends, assign work, send."""
        with self._collector.lock:
            sound = [n.name for n in nodes if not self.state.ledger.suspect(n.name)]
            predicted = [self.state.ledger.predict_s(name) for name in sound]
            self._cutoff = self.settings.cutoff.plan(predicted, self.state.situation())
            self.state.due_s, self.state.dispatched = self._due_s(), None
        return self._dispatcher.train(nodes, messages)

    def collect(self, sent: Sequence[Flight]) -> None:
        """Wait for the replies until the round is cut, and a little longer for the fewest that it needs.

        With ``refill`` a node that answers meanwhile is given the current model at once.
        """
        collector, intake, flights = self._collector, self.intake, list(sent)
        # with a rule that has no end of its own, as in a first round where nothing is known, all are awaited
        dispatched, refill = self.clock.now(), self.settings.refill and self._cutoff.ends
        until, self.state.dispatched = dispatched + self.state.due_s, dispatched

        def refillable() -> bool:
            return refill and bool(self._chooser.spare())

        def reason() -> str | None:
            flying = collector.waiting(TRAIN)
            waiting = sum(f.round == self.state.round for f in flying)
            under_way = {f.node.name for f in flying}
            elapsed, now = self.clock.now() - dispatched, self.clock.wall()
            asked = sum(f.awaited for f in flights)
            awaited = len(under_way) if self._cutoff.counts_late else waiting
            if awaited == 0 and not refillable():
                return "every node answered or is gone"
            memory = self.state.memory
            return self._cutoff.reason(
                Progress(asked, intake.fresh, waiting, elapsed, intake.counted, under_way, now, memory)
            )

        if self._cutoff.counts_late:  # a buffer is full with its k-th update, whatever else a poll brings
            with collector.lock:
                intake.full = lambda: reason() is not None

        while collector.wait(lambda: reason() is not None or refillable(), until):
            if reason() is not None:
                break
            with collector.lock:
                nodes = self._chooser.choose(self._chooser.spare())
            new = self._dispatcher.train(nodes, self.configure(nodes)) if nodes else []
            flights += new
            refill = bool(new)  # what cannot be sent now is tried in the next round
        with collector.lock:
            why = reason() or f"timeout {self.state.due_s:g} s"
        collector.wait(
            lambda: intake.short() is None or not collector.waiting(TRAIN),
            self.clock.now() + self.settings.grace_s,
        )
        with collector.lock:
            intake.close()
            under_way = {f.node.name for f in collector.waiting(TRAIN)}
            self.settings.work.closed(self.state.situation(), under_way)
            waiting = sorted(f.node.name for f in collector.waiting(TRAIN, self.state.round))
        due_s = self.state.due_s if math.isfinite(self.state.due_s) else None
        number = self.state.round
        self.events.write("cut", round=number, kind=TRAIN, reason=why, due_s=due_s, waiting=waiting)
        LOG.info("cut: %s; %s in, still under way: %s", why, intake.fresh, ", ".join(waiting) or "none")

    def aggregate(self) -> None:
        """Make the next model of what came, late updates among it, and save a checkpoint."""
        with self._collector.lock:
            short, joined, late = self.intake.short(), self.intake.joined, self.intake.late
            if short is None:
                batch = self.intake.begin_aggregate()
            else:
                self.intake.drop()
        if short is not None:
            self._skip(short)
            return
        record, metrics = batch.join(self.state.round, self.intake.model.weights)
        sound = record is not None and all(np.isfinite(x).all() for x in to_weights(record).values())
        with self._collector.lock:
            if record is not None and sound:
                if batch.norms:
                    self.state.ledger.learn_round(batch.norms, batch.moved)
                versions = {f.version for f in self._collector.flights.values() if f.kind == TRAIN}
                self.intake.publish(record, versions)
            else:
                self.intake.give_up()
        if not sound:
            self._skip("the replies could not be joined" if record is None else "their mean is not finite")
            return
        self._failed_rounds = 0
        if metrics is not None:
            self.result.train_metrics_clientapp[self.state.round] = metrics
        version, number = self.intake.model.version, self.state.round
        self.events.write("aggregated", round=number, version=version, replies=joined, late=late)
        LOG.info("aggregated %s updates, %s of them late: model version %s", joined, late, version)
        self._savepoint.save()

    def evaluate_on_nodes(self) -> None:
        """Federated evaluation on idle nodes."""
        self._evaluation.on_nodes(self._chooser.candidates(), self._configs[1], self._cutoff)

    def evaluate_centrally(self, evaluate_fn: EvaluateFn | None) -> None:
        """Evaluate on the server, where the caller can."""
        self._evaluation.centrally(evaluate_fn)

    def end(self) -> None:
        """Close the round; too many bad ones in a row end the run."""
        seconds = round(self.clock.now() - self._round_started, 3)
        self.events.write("round_finished", round=self.state.round, seconds=seconds)
        if self._failed_rounds >= self.settings.max_failed_rounds:
            failure = self._outcomes.last_failure or self.intake.last_refusal
            words = f"; last failure of a node: {failure}" if failure else ""
            raise RunError(f"{self._failed_rounds} rounds in a row were skipped: {self._skipped}{words}")

    def _due_s(self) -> float:
        own = self._cutoff.due_s()
        # Flower's default is for strategies that have no time of their own: it does not shorten a longer one
        return own if math.isfinite(own) and self._timeout == DEFAULT_TIMEOUT_S else min(own, self._timeout)

    def _skip(self, reason: str) -> None:
        self._failed_rounds += 1
        self._skipped = reason
        self.events.write("round_skipped", round=self.state.round, reason=reason)
        LOG.warning("round %s is skipped: %s", self.state.round, reason)
