"""Which arrays the ranks hold already, so that each of them gets a model once, whatever it does with it.

Arrays are told apart by their bytes object: a round's messages share those of the model, since strategies put
one ArrayRecord into all of them, and bytes cannot change.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(eq=False)
class Item:
    """An array that is, or may be, at some ranks; ``users`` messages that are not handed out yet need it."""

    number: int
    data: bytes
    users: int = 0
    holders: set[int] = field(default_factory=set)


class Shelf:
    """Rank 0's book of what the others hold."""

    def __init__(self) -> None:
        self._items: dict[int, Item] = {}
        self._next = 0
        self._drops: dict[int, list[int]] = {}

    def take(self, data: Iterable[bytes]) -> list[Item]:
        """Note that a message needs these."""
        items = []
        for one in data:
            item = self._items.get(id(one))
            if item is None:
                # it is held from now on, so that no other object gets its id
                item = self._items[id(one)] = Item(self._next, one)
                self._next += 1
            item.users += 1
            items.append(item)
        return items

    def release(self, items: Iterable[Item]) -> None:
        """A message that needed these is handed out, or never will be."""
        for item in items:
            item.users -= 1

    def tidy(self, latest: Iterable[Item]) -> None:
        """Forget what no message needs, except for the latest ones'."""
        kept = {id(item) for item in latest}
        for key, item in list(self._items.items()):
            if not item.users and id(item) not in kept:
                del self._items[key]
                for rank in item.holders:
                    self._drops.setdefault(rank, []).append(item.number)

    def missing(self, rank: int, items: Sequence[Item]) -> list[Item]:
        """Which of them a rank does not hold; each once."""
        return [item for item in dict.fromkeys(items) if rank not in item.holders]

    def drops(self, rank: int) -> list[int]:
        """What a rank is to forget; asked for once, and told with the next head."""
        return self._drops.pop(rank, [])
