"""A run's result, read from its events: ``result.json`` and ``model.safetensors``."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord

from ..records import to_weights
from .events import Event, finite

BYTES = ("bytes_up", "bytes_down", "bytes_up_full", "bytes_down_full")
RESULT, MODEL = "result.json", "model.safetensors"


def summarise(events: Iterable[Event]) -> dict[str, Any]:
    """Fold a run's events into the object that ``--json`` prints.

    Returns
    -------
    dict
        ``run``, ``rounds`` (a list), ``accuracy`` and ``loss`` of the last evaluated round, ``seconds``,
        ``bytes_up``, ``bytes_down``, ``bytes_up_full``, ``bytes_down_full`` (what they would be with full and
        exact models), ``error`` (None if the run finished). A round has ``round``, ``accuracy``, ``loss``,
        ``seconds``, the four numbers of bytes, the counts ``replied``, ``late``
        (folded in or discarded in this round), ``cut``, ``refused``, ``failed``, the names of the nodes
        behind them (``late_nodes``, ``cut_nodes``, ...) and ``skipped`` (the reason, or None).
    """
    result: dict[str, Any] = {"run": None, "seconds": None, "error": None}
    rounds: dict[int, dict[str, Any]] = {}
    for event in events:
        row = rounds.get(event.get("round", 0))
        match event["event"]:
            case "run_started":
                result["run"] = event["run"]
            case "round_started":
                rounds[event["round"]] = _empty(event["round"])
            case "run_resumed":  # rounds after the checkpoint were begun, and are begun anew
                rounds = {n: row for n, row in rounds.items() if n <= event["round"]}
                result["error"] = None
            case "run_finished":
                result["seconds"] = event["seconds"]
            case "run_failed":
                result |= {"seconds": event.get("seconds"), "error": event["error"]}
            case _ if row is not None:
                _count(row, event)
    rows = list(rounds.values())
    result["rounds"] = rows
    for key in ("accuracy", "loss"):
        result[key] = next((r[key] for r in reversed(rows) if r[key] is not None), None)
    for key in BYTES:
        result[key] = sum(r[key] for r in rows)
    return result


def save_result(folder: Path, events: Iterable[Event], arrays: ArrayRecord | None) -> dict[str, Any]:
    """Write ``result.json`` and ``model.safetensors`` into ``folder``; returns the result.

    Without ``arrays`` a model that is there stays.
    """
    from safetensors.numpy import save_file

    result = summarise(events)
    # a copy: the views of a record are read-only and may be Fortran-ordered
    if arrays is not None:
        save_file({k: x.copy(order="C") for k, x in to_weights(arrays).items()}, folder / MODEL)
    part = folder / (RESULT + ".part")
    part.write_text(json.dumps(finite(result), indent=2, allow_nan=False) + "\n")
    part.replace(folder / RESULT)  # whoever sees the file sees all of it
    return result


NAMED = {
    "reply_accepted": "replied",
    "reply_late": "late",
    "reply_refused": "refused",
    "reply_failed": "failed",
}


def _empty(number: int) -> dict[str, Any]:
    row: dict[str, Any] = {"round": number, "accuracy": None, "loss": None, "seconds": None}
    row |= {"skipped": None, **dict.fromkeys(BYTES, 0)}
    for kind in (*NAMED.values(), "cut"):
        row |= {kind: 0, f"{kind}_nodes": []}
    return row


def _count(row: dict[str, Any], event: Event) -> None:
    for key in BYTES:
        row[key] += event.get(key, 0)
    kind = event["event"]
    if kind in NAMED and event.get("kind", "train") == "train":
        _name(row, NAMED[kind], [event["node"]])
    elif kind == "cut" and event["kind"] == "train":
        _name(row, "cut", event["waiting"])
    elif kind == "evaluated":
        # the server's own evaluation speaks last: it sees the whole test set
        for key in ("accuracy", "loss"):
            if key in event["metrics"] and (event["where"] == "server" or row[key] is None):
                row[key] = event["metrics"][key]
    elif kind == "round_skipped":
        row["skipped"] = event["reason"]
    elif kind == "round_finished":
        # a resumed run closes its first round once more
        row["seconds"] = (row["seconds"] or 0) + event["seconds"]


def _name(row: dict[str, Any], kind: str, nodes: list[str]) -> None:
    row[kind] += len(nodes)
    row[f"{kind}_nodes"] += nodes
