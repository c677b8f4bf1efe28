"""Rounds as jobs: train in a batch job, while the SuperNode waits on a host that has no GPU.

Each message becomes one job, sized for what is left of its budget. Time in the queue counts: the budget runs
from the message's receipt on the SuperNode.
"""

import atexit
import contextlib
import importlib
import inspect
import json
import logging
import math
import os
from collections.abc import Callable
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any

from flwr.app import Context, Message, MessageType
from flwr.clientapp.typing import ClientAppCallable

from ..clock import WALL, Clock
from ..errors import ConfigError, JobFailed, JobLost
from ..protocol import JOB_RETRIES, OFFLOAD_ENV, QUEUE_S, RUN, config_of
from .budget import Budget, budget_of
from .parcel import Answer, Order, run
from .signals import before_the_end

LOG = logging.getLogger("flwr.hpc")  # below Flower's own logger
LOOK_S = 0.5
LONGEST_PAUSE_S = 60.0

Source = Executor | Callable[[], Executor]


@dataclass(frozen=True)
class Offload:
    """Mod that has the rest of the app done by an executor, and waits; the innermost mod of all.

    What other mods do happens on the SuperNode's host: compression, with what it keeps on the node's disk,
    clipping, noise, the budget's start, the profile. The job needs the same Python packages and a file system
    shared with the SuperNode, which holds the app's folder (``FLWR_HOME``) and the node's.

    A job that is still queued when the message's ``deadline_s`` has passed is cancelled; one that runs is
    allowed ``grace_s`` more. One that was preempted or lost with its node is submitted again. A reply to a
    server of this package tells in ``queue-s`` the seconds from the first submission to the start of the job
    that answered, and in ``job-retries`` how many were lost, if any.

    Parameters
    ----------
    executor : concurrent.futures.Executor or callable, optional
        Where to run, or what makes it, once a process and when first needed. Default: as the environment
        variable ``FLOWER_HPC_OFFLOAD`` says, ``{"executor": "module:factory", ...}``; the factory is called
        with what else the object holds, but for this mod's own settings. Without the variable the app
        runs in place. An executor whose ``submit`` takes ``minutes`` is told how long the budget allows.
    messages : tuple of str
        Categories of messages to offload; default ``("train",)``.
    grace_s : float
        Seconds beyond the budget that a running job gets, to start and to send its reply, > 0; default 120.
    max_retries : int
        How many lost jobs to replace where there is no deadline, >= 0; default 3. With one: until then.
    clock : Clock
        Of the budget; default the wall clock.

    Raises
    ------
    ConfigError
        A value that cannot work; when called: what the environment variable holds.
    JobFailed
        When called: the job did not start in time, or was lost too often, or the app raised an error.
    LaunchError
        When called: the job was refused.
    """

    executor: Source | None = None
    messages: tuple[str, ...] = (MessageType.TRAIN,)
    grace_s: float = 120.0
    max_retries: int = 3
    clock: Clock = field(default=WALL, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.grace_s, int | float) or not 0 < self.grace_s < math.inf:
            raise ConfigError(f"grace_s must be a number > 0, got {self.grace_s!r}")
        if not isinstance(self.max_retries, int) or self.max_retries < 0:
            raise ConfigError(f"max_retries must be a whole number >= 0, got {self.max_retries!r}")
        object.__setattr__(self, "messages", tuple(self.messages))

    def __call__(self, msg: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Answer ``msg`` by a job, if there is an executor and it is a message to offload."""
        how, source = self._resolved()
        if source is None or msg.metadata.message_type.partition(".")[0] not in how.messages:
            return call_next(msg, context)
        return _Task(how, source, msg, context, call_next).answer()

    def _resolved(self) -> tuple["Offload", Source | None]:
        text = os.environ.get(OFFLOAD_ENV)
        if self.executor is not None or not text:
            return self, self.executor
        settings, own = _settings(text), {f.name for f in fields(self)} - {"executor", "clock"}
        how = replace(self, **{key: settings.pop(key) for key in own & settings.keys()})
        return how, _factory(json.dumps(settings, sort_keys=True))


class _Task:
    """One message's way through jobs."""

    def __init__(
        self, how: Offload, source: Source, msg: Message, context: Context, app: ClientAppCallable
    ) -> None:
        self._how, self._source, self._clock = how, source, how.clock
        self._msg, self._context, self._app = msg, context, app
        self._budget: Budget = budget_of(msg, how.clock)
        self._asked = how.clock.now(), how.clock.wall()
        self._retries = 0

    def answer(self) -> Message:
        """Submit until a job answers."""
        while True:
            try:
                return self._read(*self._once())
            except (JobLost, BrokenExecutor) as error:
                if not self._may_retry(error):
                    raise
                LOG.warning("%s; submitted again", error)
                self._clock.sleep(min(LONGEST_PAUSE_S, 2.0**self._retries - 1))
                self._retries += 1

    def _may_retry(self, error: Exception) -> bool:
        if isinstance(error, BrokenExecutor):  # it takes no more work: only what makes one can go on
            if isinstance(self._source, Executor):
                return False
            _made.cache_clear()
        ends = math.isfinite(self._budget.seconds)
        return not self._budget.spent() and (ends or self._retries < self._how.max_retries)

    def _once(self) -> tuple[Answer, str]:
        left, now = self._budget.left(), self._clock.wall()
        if left == 0:
            raise JobFailed("no job was submitted: the message's budget is spent, or the node is to stop")
        executor = self._source if isinstance(self._source, Executor) else _made(self._source)
        ends_at = now + left if math.isfinite(left) else None
        order = Order.of(self._app, now, ends_at)
        limit: dict[str, Any] = {}
        if _takes(executor.submit, "minutes") and ends_at is not None:
            limit["minutes"] = math.ceil((left + self._how.grace_s) / 60)
        future = executor.submit(run, order, self._msg, self._context, **limit)
        try:
            with before_the_end(future.cancel):
                self._wait(future, _tells_start(executor))
            return future.result(), name_of(future)
        except CancelledError as error:
            raise JobFailed(f"{name_of(future)} was cancelled") from error
        finally:
            if not future.done():
                future.cancel()

    def _wait(self, future: Future[Answer], tells_start: bool) -> None:
        over: float | None = None
        while not wait([future], timeout=LOOK_S).done:
            if not self._budget.spent():
                continue
            now = self._clock.now()
            over = now if over is None else over
            waits = tells_start and not future.running()
            if waits or now - over > self._how.grace_s:
                where = "still in the queue" if waits else "not done"
                why = getattr(future, "reason", "") or "its budget is spent"
                raise JobFailed(f"{name_of(future)}: {where} after {now - self._asked[0]:.0f} s: {why}")

    def _read(self, answer: Answer, name: str) -> Message:
        if answer.reply is None or answer.state is None:
            error = JobFailed(f"{name} on {answer.host}: {answer.error}")
            error.add_note(answer.trace)  # for this node's log; the server reads the one line
            raise error
        self._context.state = answer.state
        waited = max(0.0, answer.began - self._asked[1])
        LOG.info("%s on %s answered; it waited %.0f s", name, answer.host, waited)
        self._report(answer.reply, waited)
        return answer.reply

    def _report(self, reply: Message, waited: float) -> None:
        # stock strategies refuse replies whose metrics differ in name, as those of other sites would
        if RUN not in config_of(self._msg) or not reply.has_content():
            return
        for metrics in list(reply.content.metric_records.values())[:1]:
            own = metrics.get(QUEUE_S, 0.0)
            metrics[QUEUE_S] = waited + (own if isinstance(own, int | float) else 0.0)
            if self._retries:
                metrics[JOB_RETRIES] = self._retries


def name_of(future: Future[Any]) -> str:
    """What a person would look for."""
    return str(getattr(future, "job", "")) or "the job"


@cache
def _made(make: Callable[[], Executor]) -> Executor:
    executor = make()
    if not callable(getattr(executor, "submit", None)):
        raise ConfigError(f"an executor must have a method submit, got {executor!r}")
    atexit.register(_close, executor)
    return executor


def _close(executor: Executor) -> None:
    known = {"cancel_futures": True} if _takes(executor.shutdown, "cancel_futures") else {}
    with contextlib.suppress(Exception):  # the process ends: it may be closed already
        executor.shutdown(wait=False, **known)


@cache
def _factory(text: str) -> Callable[[], Executor]:
    settings = json.loads(text)
    module, _, name = str(settings.pop("executor", "")).partition(":")
    try:
        make = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{OFFLOAD_ENV}: executor must be 'module:factory': {error}") from error
    return lambda: make(settings)


def _settings(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{OFFLOAD_ENV} must be a JSON object: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{OFFLOAD_ENV} must be a JSON object, got {text!r}")
    return found


def _takes(method: Callable[..., Any], name: str) -> bool:
    try:
        return name in inspect.signature(method).parameters
    except (TypeError, ValueError):
        return False


def _tells_start(executor: Executor) -> bool:
    """Whether its futures say when they run; Dask's and Globus Compute's do only when done."""
    return _takes(executor.submit, "minutes") or isinstance(
        executor, ProcessPoolExecutor | ThreadPoolExecutor
    )
