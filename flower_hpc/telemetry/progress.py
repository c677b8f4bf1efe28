"""A run as people watch it: the events folded into a few numbers, and drawn with rich."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from .events import Event
from .report import BYTES

MB, LEAST_TOLD = 1e6, 1.5


@dataclass
class RunView:
    """Where a run stands, from the events so far."""

    round: int = 0
    of: int = 0
    done: int = 0
    accuracy: float | None = None
    in_flight: set[str] = field(default_factory=set)
    cut: int = 0
    late: int = 0
    refused: int = 0
    bytes: Counter[str] = field(default_factory=Counter)
    note: str = "starting"
    news: str = ""
    """What to tell once, on a line of its own."""

    def add(self, event: Event) -> None:
        """Fold in one event."""
        kind, node = event["event"], event.get("node", "")
        self.bytes.update({key: event[key] for key in BYTES if key in event})
        if kind == "round_started":
            self.round, self.of, self.note = event["round"], event.get("of", 0), "waiting for nodes"
        elif kind == "sent":
            self.in_flight.add(node)
            self.note = "training" if event["kind"] == "train" else "evaluating on nodes"
        elif kind.startswith("reply_") or kind == "node_lost":
            self.in_flight.discard(node)
            self.late += kind == "reply_late"
            self.refused += kind in ("reply_refused", "reply_failed")
        elif kind == "cut":
            self.cut += len(event["waiting"])
            self.note = "averaging"
        elif kind == "run_resumed":
            self.news = resumed(event)
            self.round = self.done = event["round"]
            self.in_flight, self.note = set(event["in_flight"]), "resumed"
        elif kind == "aggregated":
            self.note = "evaluating"
        elif kind == "evaluated":
            self.accuracy = event["metrics"].get("accuracy", self.accuracy)
        elif kind == "round_skipped":
            self.note = f"skipped: {event['reason']}"
        elif kind == "round_finished":
            self.done = event["round"]

    def describe(self) -> str:
        """One line: round, accuracy, nodes in flight, cut, late, MB up and down."""
        accuracy = "-" if self.accuracy is None else f"{self.accuracy:.3f}"
        refused = f" · {self.refused} refused" if self.refused else ""
        return (
            f"accuracy {accuracy} · {len(self.in_flight)} in flight · {self.cut} cut · {self.late} late"
            f"{refused} · {megabytes(self.bytes, 'up')} MB up, {megabytes(self.bytes, 'down')} MB down"
        )


def resumed(event: Event) -> str:
    """What became of a resume."""
    number, damaged = event["round"], event["damaged"]
    words = f"goes on after round {number}" if number else "no checkpoint yet: the run starts from round 1"
    return "; ".join([words, *(f"damaged checkpoint passed over: {what}" for what in damaged)])


def show(events: Iterable[Event], console: Console) -> None:
    """Draw a progress bar while events come; where there is no terminal, print a line a round."""
    view = RunView()
    if not console.is_terminal:
        for event in events:
            view.add(event)
            _tell(view, console)
            if event["event"] == "round_finished":
                note = f" ({view.note})" if view.note.startswith("skipped") else ""
                total = f"/{view.of}" if view.of else ""
                words = f"round {view.round}{total}: {view.describe()}{note}"
                console.print(words, highlight=False, soft_wrap=True)
        return
    columns = TextColumn("{task.description}"), BarColumn(bar_width=16), TextColumn("{task.fields[facts]}")
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None, facts="")
        for event in events:
            view.add(event)
            _tell(view, console)
            title = f"round {view.round}/{view.of} [dim]{view.note}[/dim]" if view.of else view.note
            bar.update(
                task,
                description=title,
                total=view.of or None,
                completed=view.done,
                facts=view.describe(),
            )


def _tell(view: RunView, console: Console) -> None:
    if view.news:
        console.print(view.news, highlight=False, markup=False, soft_wrap=True)
        view.news = ""


def rounds_table(result: dict[str, Any]) -> Table:
    """The rounds of a result: accuracy, loss, time, who was late or cut, MB."""
    table = Table(
        title=f"run {result['run']}" if result.get("run") else None,
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    for name in ("round", "accuracy", "loss", "s", "in"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("cut")
    table.add_column("late")
    table.add_column("refused")
    table.add_column("MB up", justify="right", no_wrap=True)
    table.add_column("MB down", justify="right", no_wrap=True)
    for row in result["rounds"]:
        table.add_row(
            str(row["round"]),
            _number(row["accuracy"], ".3f"),
            _number(row["loss"], ".3f"),
            _number(row["seconds"], ".1f"),
            str(row["replied"]) if not row["skipped"] else "skipped",
            _names(row["cut_nodes"]),
            _names(row["late_nodes"]),
            _names(row["refused_nodes"] + row["failed_nodes"]),
            megabytes(row, "up"),
            megabytes(row, "down"),
        )
    return table


def megabytes(row: Mapping[str, Any], way: str) -> str:
    """Megabytes up or down, and which part of what full, exact models take, where it is less."""
    size, full = row[f"bytes_{way}"], row.get(f"bytes_{way}_full", 0)
    times = full / size if size else 1.0
    return f"{size / MB:.2f}" if times < LEAST_TOLD else f"{size / MB:.2g} (1/{times:.0f})"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _names(nodes: list[str]) -> str:
    shown = ", ".join(nodes[:4])
    return f"{shown} and {len(nodes) - 4} more" if len(nodes) > 4 else shown
