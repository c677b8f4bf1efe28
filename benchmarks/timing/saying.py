"""What the cases tell people: where they are, tables, and whether a bar is met."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


def say(words: str) -> None:
    """Where we are; on stderr, beside the results."""
    print(words, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Bar:
    """A ratio that was measured beside the one that is wanted."""

    what: str
    ratio: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def met(self) -> bool:
        """Whether it is as wanted."""
        low = self.at_least is None or self.ratio >= self.at_least
        return low and (self.at_most is None or self.ratio <= self.at_most)

    def row(self) -> dict[str, Any]:
        """For the JSON object."""
        return {k: v for k, v in asdict(self).items() if v is not None} | {"met": self.met}


def table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows, the first of which is the head: words to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [
            text.ljust(w) if not i else text.rjust(w)
            for i, (text, w) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def show_bars(rows: Sequence[dict[str, Any]]) -> None:
    """Print what was measured beside what is wanted."""
    for row in rows:
        wanted = f"at least {row['at_least']:g}" if "at_least" in row else f"at most {row['at_most']:g}"
        print(f"bar: {row['what']}: {row['ratio']:.3g}, {wanted}: {'met' if row['met'] else 'MISSED'}")
