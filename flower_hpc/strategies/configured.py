"""The strategy that a run asks for, for the one line that an app needs: ``configured(context)``."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp.strategy import Strategy

from ..clock import WALL
from ..errors import ConfigError, FlowerHpcError
from ..protocol import STATE_ENV
from ..telemetry import EventLog
from .hybrid import HybridStrategy
from .spec import check

KEY = "strategy"
FACTS = "facts.jsonl"
SUBMITTING_WAIT_S = 30.0


def configured(context: Context) -> Strategy:
    """The strategy for this run, with its run name and folder.

    Where a federation of ours started the SuperLink, ``flower-hpc run`` has left the run's name, its folder
    and ``--strategy`` in ``$FLOWER_HPC_STATE/requests/<run id>.json``; elsewhere the run config's
    ``strategy`` decides, and nothing is recorded.

    Parameters
    ----------
    context : Context
        The ServerApp's.

    Returns
    -------
    Strategy
        A :class:`HybridStrategy` or, for specs such as ``flower.FedAvg()``, one of Flower's own.

    Raises
    ------
    ConfigError
        A spec that cannot be read or cannot work with the federation's nodes.
    """
    request = _request(context.run_id)
    spec = request.get("strategy") or str(context.run_config.get(KEY, ""))
    strategy = check(spec, request.get("nodes"))
    if isinstance(strategy, HybridStrategy):
        run_dir = request.get("run_dir")
        state = os.environ.get(STATE_ENV)
        strategy.record_as(
            str(request.get("run", "")),
            Path(run_dir) if run_dir else None,
            resume=bool(request.get("resume", False)),
            facts=Path(state) / FACTS if state else None,
        )
        # a federation of one node is not to wait for a second
        fewest = min(strategy.settings.min_nodes, request.get("nodes") or strategy.settings.min_nodes)
        strategy.settings = replace(strategy.settings, min_nodes=fewest)
    return strategy


@contextmanager
def recorded(strategy: Strategy) -> Iterator[None]:
    """Note a failure before the strategy starts where ``flower-hpc run`` looks: in the run's events.

    For what an app does between :func:`configured` and ``strategy.start``, such as loading data.
    """
    try:
        yield
    except FlowerHpcError as error:
        if isinstance(strategy, HybridStrategy) and strategy.settings.run_dir is not None:
            events = EventLog(strategy.settings.run_dir)
            events.write("run_failed", seconds=0.0, error=str(error), exit_code=error.exit_code)
        raise


def _request(run_id: int) -> dict[str, Any]:
    state = os.environ.get(STATE_ENV)
    if not state:
        return {}
    folder = Path(state) / "requests"
    path, deadline = folder / f"{run_id}.json", WALL.now() + SUBMITTING_WAIT_S
    # the run id is known only once `flwr run` has returned; by then this process may have started
    while not path.exists() and any(folder.glob("*.submitting")) and WALL.now() < deadline:
        WALL.sleep(0.1)
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
    return found if isinstance(found, dict) else {}
