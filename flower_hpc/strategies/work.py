"""How much does each selected node do?"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

ConfigValue = bool | int | float | str
NOTHING: Mapping[str, ConfigValue] = MappingProxyType({})


class Work(Protocol):
    """An assignment of work."""

    def assign(self, node: str) -> Mapping[str, ConfigValue]:
        """What to write into the config of the message to ``node``."""
        ...


@dataclass(frozen=True)
class FixedWork:
    """The same work for every node: what the app's own config says.

    Parameters
    ----------
    config : mapping
        Entries to add to every train message's config, such as ``{"proximal-mu": 0.01}``; default none.
    """

    config: Mapping[str, ConfigValue] = field(default_factory=lambda: NOTHING)

    def assign(self, node: str) -> Mapping[str, ConfigValue]:
        """The same for each."""
        return self.config
