"""The round loop: select, assign work, dispatch, collect until cut off, average, evaluate, record.

Synchronous, partial and semi-asynchronous training are this one loop with other policies; see DESIGN.md's
table, and ``fedbuff.py``, ``fedqueue.py`` and so on for the presets.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from ..errors import ConfigError, FlowerHpcError, RunError
from ..mean import StreamingMean, mean_metrics
from ..protocol import ARRAYS, CONFIG, SERVER_ROUND
from ..records import to_record, to_weights
from .checks import whole
from .loop.evaluation import EvaluateFn
from .loop.log import LOG
from .loop.replies import read_reply
from .loop.resume import refuse_if_gone
from .loop.run import Run
from .options import HybridOptions, Settings


class HybridStrategy(Strategy):
    """A Flower strategy that does not wait for its slowest node.

    Every argument is optional; without any it is FedAvg (McMahan et al. 2017), save that it waits for nobody
    who has gone, and folds a late update into a later round.

    Parameters
    ----------
    cutoff : Cutoff
        When a round ends: ``WaitForAll()`` (default), ``Deadline(seconds)``, ``FirstK(k or fraction)``,
        ``AdaptiveDeadline(quantile)``, ``AdaptiveK()``, joined with ``|``. Nodes that have not answered stay
        in flight: not asked again before they have.
    staleness : Staleness
        What their update is worth when it comes: ``Polynomial(0.5)`` (default), ``Discard()``,
        ``Constant()``, ``Hinge()``, ``Harmonic()``, ``Exponential()``. It is an update against the model that
        they started from, and counts ``weight x worth``.
    selection : Selection
        Which idle nodes a round asks; default ``RandomSelection()``, all of them; or ``ResourceAware()``,
        ``Oort()``.
    work : Work
        How much each does; default ``FixedWork()``, what the app says; or ``FitDeadline()``, ``Compass()``,
        ``QueueAware()``.
    weighting : Weighting
        What an update counts; default ``ByExamples()``; or ``ByLoss()``, ``ByGradientVariance()``.
    inclusion : str, optional
        ``"inverse"`` divides each weight by how much of an update its node yields on average when asked (with
        ``Discard`` the probability of being on time; at least 0.05), so that slow sites are not trained away
        (Horvitz & Thompson 1952). Default None.
    refill : bool
        Whether a node that answers while a round goes on is given the current model at once; default False.
    concurrency : int, optional
        With ``refill``: how many nodes train at a time; default as many as the selection asks.
    server_lr : float
        How far to go towards the mean, > 0; default 1.
    damped : bool
        Whether stale updates move the model less, rather than count less beside fresh ones; default False.
    mix : str
        ``"updates"`` (default), or ``"models"``: a stale reply counts as the model that it is, FedAsync's
        equation.
    normalise_steps : bool
        FedNova's normalisation by the steps done; default False.
    control : bool
        SCAFFOLD's control variates; default False.
    compression : Compression, Codec, str or mapping
        How updates travel up and models down: a codec for updates, such as ``topk(0.01) >> int8``, or a
        mapping with the parameters of :class:`~flower_hpc.compression.Compression`. Nodes whose apps use
        ``CompressUpdates`` do as it says, others send full weights. Default: exact.
    dropout : FederatedDropout, float or list of float
        Federated dropout: the share of the units that nodes train, or several to choose from; see
        :class:`~flower_hpc.strategies.FederatedDropout`. The app must build its model at the width that the
        message's config has as ``flower-hpc.width``. Default: all.
    inner : Strategy, optional
        Any Flower strategy, unchanged (FedAdam, Krum, a DP wrapper): it configures the nodes that the round
        selected and joins the replies, as full weights. Memory is then nodes x model. A DP wrapper takes no
        late updates, and a round counts only with exactly its ``num_sampled_clients`` replies.
    fraction_evaluate : float
        Share of the idle nodes that evaluates the new model each round, in [0, 1]; default 1, as FedAvg.
        An inner strategy uses its own.
    min_nodes : int
        Nodes that must be online, busy or idle, for a round to start; default 2.
    node_wait_s : float
        How long a round waits for them before it is skipped; default 300 s.
    min_replies : int
        Updates without which a round is skipped; default 1. What did come is kept for the next.
    grace_s : float
        How long after the cut to wait for ``min_replies``; default 10 s.
    max_failed_rounds : int
        Rounds skipped in a row that end the run with an error; default 3.
    lost_after_s : float, optional
        Time to live of a message: a node that has not answered by then is suspect, rests, and is asked once
        more. Default max(3600 s, 10 x the slowest node's usual time).
    profile_every : int
        Rounds after which nodes measure their resources anew, where their app can (``ProfiledApp``);
        default 20, 0: never.
    seed : int, optional
        Of the selection; default random.
    checkpoint_every : int
        Rounds between checkpoints in ``run_dir``; default 1, 0: none.
    keep_checkpoints : int
        How many are kept, >= 2; default 3.
    resume : bool
        Whether to go on from the newest whole checkpoint in ``run_dir``; default False.
    run_name, run_dir : str, Path, optional
        The run's own name, and the folder for ``events.jsonl``, ``result.json``, ``model.safetensors`` and
        the checkpoints; default none. ``flower-hpc run`` sets both.
    facts : Path, optional
        ``facts.jsonl``, where launchers write what schedulers know of the nodes; default none.

    Raises
    ------
    ConfigError
        A value that cannot work, in one line.
    """

    def __init__(self, **options: Unpack[HybridOptions]) -> None:
        self.settings = Settings(**options)  # type: ignore[arg-type]  # texts of codecs are read there
        self._sent = ArrayRecord()

    def record_as(
        self, run_name: str, run_dir: Path | None, *, resume: bool = False, facts: Path | None = None
    ) -> None:
        """Set the run's name and folder, whether it goes on, and where schedulers' facts are."""
        self.settings = replace(self.settings, run_name=run_name, run_dir=run_dir, resume=resume, facts=facts)

    def check_resume(self, run_dir: Path) -> None:
        """Before anything is started: ConfigError where the run in a folder has lost what it saved."""
        refuse_if_gone(run_dir, self.settings.checkpoint_every)

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: EvaluateFn | None = None,
    ) -> Result:
        """Train for ``num_rounds``; the signature is Flower's.

        Parameters
        ----------
        grid : Grid
            Any Flower grid; one with a ``clock`` attribute decides the time.
        initial_arrays : ArrayRecord
            The model to begin with; its names, shapes and dtypes are what replies must have.
        num_rounds : int
            Rounds to run; default 3.
        timeout : float
            Seconds after which a round is cut whatever the cutoff says; default 3600, which a cutoff with a
            longer time of its own overrules.
        train_config, evaluate_config : ConfigRecord, optional
            Entries for every message; neither is changed.
        evaluate_fn : callable, optional
            ``(round, arrays) -> MetricRecord | None``, called before the first and after every round.

        Returns
        -------
        Result
            Flower's: the final arrays and the metrics by round.

        Raises
        ------
        RunError
            ``max_failed_rounds`` rounds in a row were skipped, or no round aggregated anything.
        ConfigError
            With ``resume``: rounds were saved, but no checkpoint is left that is whole.
        """
        whole("num_rounds", num_rounds, least=0)
        run = Run(self.settings, self, grid, initial_arrays, timeout, train_config, evaluate_config)
        self.summary()
        with run:
            if not run.resumed:
                run.evaluate_centrally(evaluate_fn)
            for number in run.rounds(num_rounds):
                if run.begin(number, num_rounds):
                    nodes = run.select()
                    if nodes is not None:
                        run.collect(run.dispatch(nodes, run.configure(nodes)))
                        run.aggregate()
                run.evaluate_on_nodes()
                run.evaluate_centrally(evaluate_fn)
                run.end()
        return run.result

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One train message for each node that ``grid`` lists; an inner strategy makes its own."""
        self._sent = arrays
        if self.settings.inner is not None:
            return self.settings.inner.configure_train(server_round, arrays, config, grid)
        return _messages(server_round, arrays, config, grid, MessageType.TRAIN)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average replies that all came in time, one by one, as a wrapper around this strategy needs it."""
        if self.settings.inner is not None:
            return self.settings.inner.aggregate_train(server_round, replies)
        model, mean, seen = to_weights(self._sent), StreamingMean(), []
        for message in replies:
            try:
                if message.has_error():
                    raise RunError(str(message.error.reason))
                reply = read_reply(message, model, 0, self.settings.weighting)
            except FlowerHpcError as error:
                LOG.warning("refused the reply of node %s: %s", message.metadata.src_node_id, error)
                continue
            mean.add(reply.arrays, reply.weight, is_update=reply.is_update)
            seen.append((reply.metrics, reply.weight))
        if mean.total == 0:
            return None, None
        return to_record(mean.result(model)), mean_metrics(seen, self.settings.weighting.key)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One evaluate message for each node that ``grid`` lists; an inner strategy makes its own."""
        if self.settings.inner is not None:
            return self.settings.inner.configure_evaluate(server_round, arrays, config, grid)
        return _messages(server_round, arrays, config, grid, MessageType.EVALUATE)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Mean of the nodes' metrics, weighted as their updates are."""
        if self.settings.inner is not None:
            return self.settings.inner.aggregate_evaluate(server_round, replies)
        weighting, seen = self.settings.weighting, []
        for message in replies:
            for metrics in message.content.metric_records.values():
                try:
                    seen.append((metrics, weighting.examples(metrics)))
                except FlowerHpcError as error:
                    LOG.warning("left out an evaluation: %s", error)
        return mean_metrics(seen, weighting.key)

    def summary(self) -> None:
        """Log the policies."""
        settings = self.settings
        for name in ("selection", "work", "cutoff", "worth", "weighting", "inclusion"):
            LOG.info("\t├── %s: %s", name, getattr(settings, name))
        inner = "streaming mean" if settings.inner is None else type(settings.inner).__name__
        LOG.info("\t└── joined by: %s", inner)
        if settings.inner is not None:
            LOG.info("\t    (holds every reply of a round: memory is nodes x model)")
            settings.inner.summary()


def refuse_own(preset: str, options: HybridOptions, *own: str, takes_inner: bool = False) -> None:
    """ConfigError where options name what a preset sets itself, or an inner strategy that it cannot take."""
    if options.get("inner") is not None and not takes_inner:
        raise ConfigError(f"{preset} takes no inner strategy: how it joins updates is its own")
    for name in own:
        if name in options:
            raise ConfigError(f"{preset} sets {name} itself; use HybridStrategy({name}=...) to combine")


def _messages(
    server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid, kind: str
) -> list[Message]:
    content = RecordDict({ARRAYS: arrays, CONFIG: ConfigRecord(dict(config) | {SERVER_ROUND: server_round})})
    return [Message(content, node_id, kind) for node_id in grid.get_node_ids()]
