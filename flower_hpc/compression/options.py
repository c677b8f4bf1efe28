"""How updates and models travel: one checked value; a train message carries the node's part as JSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Any, Self

from ..errors import ConfigError
from ..records import NDArray, is_real_float
from .codec import Codec, Identity, Sparsifier
from .sparsify import RandomK
from .wire import CODECS, parse

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Last parts of the names of arrays that norms measure and nobody learns."""
SENT = ("up", "rules", "small", "feedback", "decay", "momentum")  # what a node needs to know


@dataclass(frozen=True)
class Compression:
    """How updates travel up, and models down.

    Parameters
    ----------
    up : Codec
        Of updates; default exact. Texts such as ``"topk(0.01) >> int8"`` are read.
    down : Codec
        Of the global model, or of its change; default exact.
    delta : bool
        Whether nodes are sent the change since the version that they hold, rather than the model. What
        ``down`` drops of a change goes into the next one. New and restarted nodes get the whole model.
        Default False.
    rules : mapping of str to Codec
        Codecs by array name, where another than ``up`` is wanted: shell patterns, the first that matches
        counts. Integers travel exactly in any case, and statistics unless the rule's codec keeps all entries.
    small : int
        Arrays of fewer elements travel exactly, as do integers and the statistics of norms; default 1000.
    feedback : bool
        Whether a node keeps what its codec drops and adds it to its next update (error feedback, Karimireddy
        et al. 2019, https://arxiv.org/abs/1901.09847); default True. Unbiased and lossless codecs do without.
    decay : float
        What is left of it the next time, in [0, 1]; default 1. Below, old remainders of seldom chosen nodes
        fade.
    momentum : float
        Momentum correction (Lin et al. 2018, https://arxiv.org/abs/1712.01887), in [0, 1); default 0, none.
        Without momentum on the server.
    accept : tuple of str
        Names of the codecs that replies may use; default all.

    Raises
    ------
    ConfigError
        A value that cannot work, in one line.
    """

    up: Codec = field(default_factory=Identity)
    down: Codec = field(default_factory=Identity)
    delta: bool = False
    rules: Mapping[str, Codec] = field(default_factory=dict)
    small: int = 1000
    feedback: bool = True
    decay: float = 1.0
    momentum: float = 0.0
    accept: tuple[str, ...] = tuple(CODECS)

    def __post_init__(self) -> None:
        for name in ("up", "down"):
            object.__setattr__(self, name, _codec(name, getattr(self, name)))
        if not isinstance(self.rules, Mapping):
            raise ConfigError(f"rules must map patterns to codecs, got {self.rules!r}")
        rules = {str(k): _codec(f"rule {k!r}", v) for k, v in self.rules.items()}
        object.__setattr__(self, "rules", rules)
        for name in ("delta", "feedback"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} must be true or false, got {getattr(self, name)!r}")
        if isinstance(self.small, bool) or not isinstance(self.small, int) or self.small < 0:
            raise ConfigError(f"small must be a whole number >= 0, got {self.small!r}")
        _within("decay", self.decay, closed=True)
        _within("momentum", self.momentum, closed=False)
        self._check_accept()
        if self.delta and not self.down.stages:
            raise ConfigError("delta needs a codec in down, such as int8")
        if not self.delta and any(isinstance(s, Sparsifier) for s in self.down.stages):
            raise ConfigError(f"down must keep the whole model unless delta is true, got {self.down.spec}")
        for codec in (self.down, *((self.up, *self.rules.values()) if self.momentum else ())):
            if any(isinstance(s, RandomK) and s.unbiased for s in codec.stages):
                raise ConfigError(f"an unbiased randomk takes neither delta nor momentum, got {codec.spec}")

    def _check_accept(self) -> None:
        given: Any = self.accept
        accept = (given,) if isinstance(given, str) else given
        if not isinstance(accept, list | tuple) or not all(isinstance(name, str) for name in accept):
            raise ConfigError(f"accept must be a list of names of codecs, got {given!r}")
        accept = tuple(accept)
        object.__setattr__(self, "accept", accept)
        if unknown := set(accept) - CODECS.keys():
            raise ConfigError(f"accept must be of {', '.join(CODECS)}, got {', '.join(map(str, unknown))}")
        used = {s.name for c in (self.up, *self.rules.values()) for s in c.stages}
        if not used <= {*accept}:
            lacking = ", ".join(sorted(used - {*accept}))
            raise ConfigError(f"accept must hold what up and rules use, missing {lacking}")

    @classmethod
    def of(cls, value: object) -> "Compression":
        """From a codec, a codec's text, a mapping of parameters, or one of these already.

        Raises
        ------
        ConfigError
            None of these, or an unknown parameter.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, Codec | str):
            return cls(up=_codec("compression", value))
        if not isinstance(value, Mapping):
            raise ConfigError(f"compression must be a codec or a mapping, got {value!r}")
        known = [f.name for f in fields(cls)]
        if unknown := [str(k) for k in value if k not in known]:
            raise ConfigError(f"compression has no parameter {unknown[0]!r}, known are {', '.join(known)}")
        return cls(**{str(k): v for k, v in value.items()})

    def ask(self) -> str:
        """The node's part, for a train message."""
        found: dict[str, Any] = {name: getattr(self, name) for name in SENT}
        found["up"] = self.up.spec
        found["rules"] = {k: c.spec for k, c in self.rules.items()}
        return json.dumps(found)

    @classmethod
    def answer(cls, text: str) -> Self:
        """Inverse of :meth:`ask`; ConfigError for anything else."""
        try:
            found = json.loads(text)
            return cls(**{name: found[name] for name in SENT})
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            words = "the message asks for a compression that cannot be read"
            raise ConfigError(f"{words}: {text[:200]!r}") from error

    @property
    def downward(self) -> "Compression":
        """As a model travels down: ``rules`` are the way up's, what is exact there is so here as well."""
        return Compression(up=self.down, small=self.small)

    @property
    def remembers(self) -> bool:
        """Whether nodes keep something from update to update."""
        lossy = [c for c in (self.up, *self.rules.values()) if c.stages and not c.lossless and not c.unbiased]
        return bool(self.feedback and (lossy or self.momentum))

    @property
    def sparsifies(self) -> bool:
        """Whether updates lose entries that must be sent another time."""
        return any(_sparsifies(c) for c in (self.up, *self.rules.values()))

    def codec_for(self, name: str, x: NDArray) -> Codec:
        """How an array of an update travels."""
        if not is_real_float(x):
            return Identity()
        rule = next((c for pattern, c in self.rules.items() if fnmatchcase(name, pattern)), None)
        if is_statistic(name):  # nobody sends the rest of one later
            return rule if rule is not None and not _sparsifies(rule) else Identity()
        return rule or (Identity() if x.size < self.small else self.up)


def is_statistic(name: str) -> bool:
    """True for what norms measure: running means, running variances, counters."""
    return name.rpartition(".")[2] in STATISTICS


def _sparsifies(codec: Codec) -> bool:
    return any(isinstance(s, Sparsifier) and not s.unbiased for s in codec.stages)


def _codec(what: str, value: object) -> Codec:
    if isinstance(value, str):
        return parse(value)
    if not isinstance(value, Codec):
        raise ConfigError(f"{what} must be a codec, got {value!r}")
    return value


def _within(name: str, value: object, *, closed: bool) -> None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
    if not good or (value == 1 and not closed):
        raise ConfigError(f"{name} must be in [0, 1{']' if closed else ')'}, got {value!r}")
