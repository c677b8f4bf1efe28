"""The one reply of many clients: the weighted mean of theirs, folded in as they come.

With weights ``n_i`` and their sum ``N``: arrays and metrics ``sum_i n_i x_i / N``, weight ``N``, so that a
server which weighs by it has the mean over all clients. Where the server divides updates by the steps behind
them (FedNova), with ``a_i`` steps and ``a = sum_i n_i a_i / N``,

    x = w + a sum_i (n_i / N) (x_i - w) / a_i

whose weighted sums over sites, of ``a`` and of ``(x - w) / a``, are those over all clients (equation 8 of
Wang et al. 2020, https://arxiv.org/abs/2007.07481).
"""

import math

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict

from ...errors import ConfigError, ReplyError
from ...mean import MOST_EXAMPLES, StreamingMean, mean_metrics, metric
from ...protocol import (
    EFFECTIVE_STEPS,
    LOSS_RMS,
    NORMALISE,
    NUM_STEPS,
    RUN,
    SITE_CLIENTS,
    SITE_FAILED,
    TRAIN_S,
)
from ...records import Weights, is_inexact, read_like, records_of, subtract, to_record, to_weights


class Merge:
    """Takes the replies to one message.

    Parameters
    ----------
    content : RecordDict
        The message's.
    kind : str
        Its type.
    weight : str
        The metric that weighs a reply.

    Attributes
    ----------
    failed : list of str
        Clients that are not in it, and why.
    """

    def __init__(self, content: RecordDict, kind: str, weight: str) -> None:
        config = next(iter(records_of(content, ConfigRecord).values()), ConfigRecord())
        self._trains = kind.partition(".")[0] == MessageType.TRAIN
        self._model = (
            to_weights(next(iter(records_of(content, ArrayRecord).values()))) if self._trains else {}
        )
        self._divides = self._trains and config.get(NORMALISE) is True
        self._counts = RUN in config  # stock servers refuse replies whose metrics differ in name
        self._weight, self._whole = weight, True
        self._mean, self._total, self._steps = StreamingMean(), 0.0, 0.0
        self._metrics: list[tuple[MetricRecord, float]] = []
        self._names: tuple[str, ...] = ()
        self.failed: list[str] = []

    def add(self, client: str, reply: Message) -> None:
        """Fold one in, or note why it cannot be.

        Raises
        ------
        ConfigError
            A reply of a kind that has no mean.
        """
        try:
            if reply.has_error():
                raise ReplyError(str(reply.error.reason))
            self._fold(*self._checked(reply.content))
        except ReplyError as error:
            self.failed.append(f"{client}: {error}")

    def result(self, seconds: float) -> RecordDict:
        """The site's reply; ``seconds`` is how long its clients worked.

        Raises
        ------
        ReplyError
            There is no client's reply in it.
        """
        if not self._metrics:
            count, first = len(self.failed), self.failed[0] if self.failed else "there is none"
            raise ReplyError(f"none of the site's {count} clients has a reply that can be used; {first}")
        content = RecordDict()
        if self._trains:
            content[self._names[0]] = to_record(self._arrays())
        content[self._names[-1]] = self._merged(seconds)
        return content

    def _checked(self, content: RecordDict) -> tuple[dict[str, ArrayRecord], dict[str, MetricRecord]]:
        """Its arrays and its metrics: one record each, and none of arrays where nothing is trained."""
        arrays, metrics = records_of(content, ArrayRecord), records_of(content, MetricRecord)
        if configs := records_of(content, ConfigRecord):
            names = ", ".join(sorted(configs))
            raise ConfigError(
                f"a site as one node cannot answer for clients that reply with a ConfigRecord ({names}): it "
                "has no mean"
            )
        wanted = 1 if self._trains else 0
        if (count := len(arrays)) > wanted:
            raise ConfigError(
                f"a site as one node cannot answer for clients that reply with {count} ArrayRecords, "
                f"expected {wanted}"
            )
        if count < wanted:
            raise ReplyError(f"it has {count} ArrayRecords, expected {wanted}")
        if len(metrics) != 1:
            raise ReplyError(f"it has {len(metrics)} MetricRecords, expected 1")
        called = (*arrays, *metrics)
        if self._names and called != self._names:
            raise ReplyError(f"its records are called {called}, those of others {self._names}")
        return arrays, metrics

    def _fold(self, found: dict[str, ArrayRecord], measured: dict[str, MetricRecord]) -> None:
        (metrics,) = measured.values()
        weight = metric(metrics, self._weight, MOST_EXAMPLES)
        if self._trains:
            (record,) = found.values()
            arrays: Weights = {k: np.asarray(x) for k, x in read_like(record, self._model).items()}
            if self._divides:
                steps = metric(metrics, EFFECTIVE_STEPS if EFFECTIVE_STEPS in metrics else NUM_STEPS)
                if steps == 0:
                    raise ReplyError(f"its {NUM_STEPS!r} is 0, must be > 0")
                update = subtract(arrays, self._model)
                arrays = {k: d / steps if is_inexact(d) else d for k, d in update.items()}
                self._steps += weight * steps
            self._mean.add(arrays, weight, is_update=self._divides)
        self._names = (*found, *measured)
        self._total += weight
        self._whole = self._whole and isinstance(metrics[self._weight], int)
        self._metrics.append((_squared(metrics), weight))

    def _arrays(self) -> Weights:
        if self._total == 0:
            return self._model  # replies that weigh nothing: nothing was learnt
        step = self._steps / self._total if self._divides else 1.0
        return self._mean.result(self._model, step)

    def _merged(self, seconds: float) -> MetricRecord:
        total = int(self._total) if self._whole else self._total
        merged = MetricRecord({self._weight: total})
        merged.update(mean_metrics(self._metrics, self._weight) or {})
        if isinstance(rms := merged.get(LOSS_RMS), float):
            merged[LOSS_RMS] = math.sqrt(rms)
        if self._divides and self._total:  # by which the update was scaled, and which the server divides by
            merged[EFFECTIVE_STEPS] = self._steps / self._total
        if TRAIN_S in merged:
            merged[TRAIN_S] = seconds  # clients may have taken turns: what counts is when the site was done
        if self._counts:
            merged[SITE_CLIENTS], merged[SITE_FAILED] = len(self._metrics), len(self.failed)
        return merged


def _squared(metrics: MetricRecord) -> MetricRecord:
    """A root of a mean has its mean as a square."""
    value = metrics.get(LOSS_RMS)
    if not isinstance(value, int | float):
        return metrics
    return MetricRecord({**metrics, LOSS_RMS: float(value) ** 2 if abs(value) < math.sqrt(1e200) else value})
