"""Evaluating the current model: on idle nodes, and on the server where the caller can."""

from collections.abc import Callable

from flwr.app import ArrayRecord, ConfigRecord, MessageType, MetricRecord
from flwr.serverapp.strategy import Result, Strategy

from ...telemetry import EventLog
from ..cutoff import Cutoff, Progress
from ..inner import minimum_nodes
from ..options import Settings
from .collect import Collector, Online
from .dispatch import Dispatcher
from .intake import Intake
from .log import LOG
from .outcomes import Outcomes
from .state import RunState

EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]


class Evaluation:
    """Evaluates, and keeps the metrics in ``result``."""

    def __init__(
        self,
        settings: Settings,
        hooks: Strategy,
        state: RunState,
        intake: Intake,
        events: EventLog,
        result: Result,
        dispatcher: Dispatcher,
        collector: Collector,
        outcomes: Outcomes,
    ) -> None:
        self._settings, self._hooks, self._state = settings, hooks, state
        self._intake, self._events, self._result = intake, events, result
        self._dispatcher, self._collector, self._outcomes = dispatcher, collector, outcomes

    def on_nodes(self, nodes: list[Online], config: ConfigRecord, cutoff: Cutoff) -> None:
        """Federated evaluation on idle nodes, cut as the training is; late evaluations are dropped."""
        number, inner = self._state.round, self._settings.inner
        dispatcher, collector, outcomes = self._dispatcher, self._collector, self._outcomes
        if inner is None:
            nodes = self._state.rng.sample(nodes, int(self._settings.fraction_evaluate * len(nodes) + 1e-9))
        if not nodes or (inner is not None and len(nodes) < minimum_nodes(inner, "evaluate")):
            return
        record, view = ConfigRecord(dict(config)), dispatcher.view(nodes)
        messages = self._hooks.configure_evaluate(number, self._intake.model.record, record, view)
        sent = dispatcher.evaluate(nodes, list(messages))
        if not sent:
            return
        clock = self._state.clock
        dispatched = clock.now()

        def done() -> bool:
            waiting = len(collector.waiting(MessageType.EVALUATE, number))
            elapsed = clock.now() - dispatched
            progress = Progress(len(sent), len(outcomes.evaluations), waiting, elapsed)
            return waiting == 0 or cutoff.reason(progress) is not None

        collector.wait(done, dispatched + self._state.due_s)
        with collector.lock:
            replies, outcomes.evaluations = outcomes.evaluations, []
        if replies and (metrics := self._hooks.aggregate_evaluate(number, replies)) is not None:
            self._result.evaluate_metrics_clientapp[number] = metrics
            self._events.write("evaluated", round=number, where="nodes", metrics=dict(metrics))

    def centrally(self, evaluate_fn: EvaluateFn | None) -> None:
        """Evaluate on the server."""
        if evaluate_fn is None:
            return
        number = self._state.round
        metrics = evaluate_fn(number, self._intake.model.record)
        if metrics is not None:
            self._result.evaluate_metrics_serverapp[number] = metrics
            self._events.write("evaluated", round=number, where="server", metrics=dict(metrics))
            LOG.info("evaluated: %s", dict(metrics))
