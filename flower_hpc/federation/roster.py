"""nodes.json: which partition and which node id belongs to a name, for as long as the federation exists."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import ConfigError, FederationError
from .config import FederationConfig
from .state import read_json, write_json


class Member(BaseModel):
    """One name's lasting facts."""

    model_config = ConfigDict(frozen=True)

    partition: int
    node_id: int | None = None
    registered: bool = False


class Roster(BaseModel):
    """All names that the federation ever had; changing it returns a new one."""

    model_config = ConfigDict(frozen=True)

    partitions: int
    members: Mapping[str, Member] = {}
    told: str | None = None
    """The SuperLink's job that the registrations were made with, where it is a job."""

    def admit(self, names: Iterable[str]) -> "Roster":
        """Give each new name the first free partition; ConfigError where there are too few."""
        members = dict(self.members)
        free = sorted(set(range(self.partitions)) - {member.partition for member in members.values()})
        for name in names:
            if name not in members:
                if not free:
                    raise ConfigError(
                        f"{name} finds no partition left: this federation was made with {self.partitions}"
                    )
                members[name] = Member(partition=free.pop(0))
        return self.model_copy(update={"members": members})

    def learn(self, name: str, node_id: int | None, *, registered: bool) -> "Roster":
        """Note what the SuperLink says of a name."""
        update = {"node_id": node_id, "registered": registered}
        changed = self.members[name].model_copy(update=update)
        return self.model_copy(update={"members": dict(self.members) | {name: changed}})

    def tell(self, job: str | None) -> "Roster":
        """Note with which SuperLink's job registrations are made from now on."""
        return self.model_copy(update={"told": job})

    def forget_ids(self) -> "Roster":
        """Keep names and partitions; the SuperLink's memory is gone."""
        members = {name: Member(partition=member.partition) for name, member in self.members.items()}
        return self.model_copy(update={"members": members})

    @classmethod
    def read(cls, path: Path) -> "Roster | None":
        """Read nodes.json; None where the federation was never up, FederationError where it is damaged."""
        data: Any = read_json(path)
        if data is None:
            return None
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise FederationError(f"{path} is damaged: {error.errors()[0]['msg']}") from error

    def write(self, path: Path) -> None:
        """Replace nodes.json."""
        write_json(path, self.model_dump(mode="json"))


def partitions_of(config: FederationConfig) -> int:
    """Into how many parts the data of a new federation is cut: the most nodes that it may have."""
    return config.partitions or sum(config.most.values())


def roster_for(config: FederationConfig, old: Roster | None, counts: Mapping[str, int]) -> Roster:
    """The roster that ``config`` needs with ``counts`` nodes a site.

    Raises
    ------
    ConfigError
        ``partitions`` differs from what the federation was made with, or more nodes than partitions.
    """
    if old is None:
        old = Roster(partitions=partitions_of(config))
    elif config.partitions not in (None, old.partitions):
        raise ConfigError(
            f"partitions: got {config.partitions}, must be {old.partitions}, with which federation "
            f"{config.name!r} was made (give the new one another name)"
        )
    total = sum(counts.values())
    if total > old.partitions:
        raise ConfigError(
            f"nodes: got {total} in all, must be at most the {old.partitions} partitions with which "
            f"federation {config.name!r} was made (partitions: N is fixed at its first start)"
        )
    return old.admit(names_of(counts))


def names_of(counts: Mapping[str, int]) -> list[str]:
    """``site-0`` to ``site-(n-1)`` for each site."""
    return [f"{site}-{index}" for site, count in counts.items() for index in range(count)]


def site_of(node: str) -> str:
    """The site in a node's name."""
    return node.rpartition("-")[0]
