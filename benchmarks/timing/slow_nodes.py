"""Cases ``straggler``, ``killed`` and ``plain``: clients that sleep in place of training.

Every case starts a SuperLink and SuperNodes of its own.

straggler  2 nodes, one takes 25 s: stock with a timeout of 10 s; ours cut at 10 s, and at the first reply.
           ``cut_lag_s`` is how long the round went on after the cut was due: after the deadline, or after
           the reply that ended it was pulled.
killed     3 nodes, 8 s of work, one SuperNode killed -9 in mid-round: ours with first_k(2/3) against an
           undisturbed round that waits for all, in pairs; stock once.
plain      4 nodes, no work: what a round costs, stock and ours.
"""

import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from flower_hpc.federation import Federation
from flower_hpc.federation.runs import App, new_name, state_of, submit
from flower_hpc.telemetry import read_events

APP = App.read(Path(__file__).parents[1] / "sleepy")
STRAGGLER_S, CUT_S, WORK_S = 25.0, 10.0, 8.0


def plain() -> dict[str, Any]:
    """What a round costs when no node works at all."""
    with federation("bench-plain", 4) as fed:
        stock = run(fed, "", rounds=6)
        ours = run(fed, "hybrid()", rounds=6)
    # the first round has the nodes' start in it
    seconds = {
        "stock_s": statistics.median(stock["rounds_s"][1:]),
        "ours_s": statistics.median(ours["rounds_s"][1:]),
    }
    return seconds | {"ratio": round(seconds["ours_s"] / seconds["stock_s"], 3)}


def straggler() -> dict[str, Any]:
    """One node of two takes 25 s."""
    nodes = {1: {"work-s": STRAGGLER_S}}
    with federation("bench-straggler", 2, nodes) as fed:
        stock = run(fed, "", rounds=4, timeout=CUT_S)
    found: dict[str, Any] = {"stock": {"rounds_s": stock["rounds_s"], "mean_weight": stock["mean"]}}
    cases = {
        "deadline": f"deadline({CUT_S:g})",
        "deadline_discard": f"hybrid(cutoff=deadline({CUT_S:g}), staleness=discard)",
        "first_reply": "first_k(1)",
    }
    for name, spec in cases.items():
        with federation("bench-straggler", 2, nodes) as fed:
            found[name] = judged(fed, run(fed, spec, rounds=6))
    return found


def judged(fed: Federation, ran: dict[str, Any]) -> dict[str, Any]:
    """Of one of our runs: how late its cuts were, and what became of the slow node's updates."""
    events, slow = ran["events"], "here-1"
    sent = {e["round"]: e["time"] for e in events if e["event"] == "sent"}
    replied = {e["round"]: e["time"] for e in events if e["event"] == "reply_accepted"}
    done = [float(line) for line in (fed.state_dir / "sleepy-done").read_text().split()]
    lags, after_client = [], []
    for cut in (e for e in events if e["event"] == "cut"):
        by_time = cut["reason"].startswith("deadline")
        due = sent[cut["round"]] + CUT_S if by_time else replied[cut["round"]]
        lags.append(cut["time"] - due)
        if not by_time:  # Flower's SuperNode looks every 0.5 s whether its client has replied
            after_client.append(cut["time"] - max(t for t in done if t <= cut["time"]))
    in_flight, most = 0, 0
    for event in events:
        if event.get("node") == slow:
            in_flight += {"sent": 1, "reply_late": -1, "reply_accepted": -1}.get(event["event"], 0)
            most = max(most, in_flight)
    late = [e for e in events if e["event"] == "reply_late"]
    return {
        "rounds_s": ran["rounds_s"],
        "cut_lag_s": [round(lag, 3) for lag in lags],
        "worst_cut_lag_s": round(max(lags), 3),
        "after_client_done_s": [round(lag, 3) for lag in after_client],
        "slow_node_asked": sum(e["event"] == "sent" and e["node"] == slow for e in events),
        "slow_node_most_in_flight": most,
        "late_folded_in": sum(e["weight"] > 0 for e in late),
        "late_discarded": sum(e["weight"] == 0 for e in late),
        "mean_weight": ran["mean"],
    }


def killed(pairs: int) -> dict[str, Any]:
    """A SuperNode is killed while it works."""
    rows = []
    with federation("bench-killed", 3, {i: {"work-s": WORK_S} for i in range(3)}) as fed:
        for _ in range(pairs):
            whole = run(fed, "hybrid()", rounds=1)["rounds_s"][0]
            cut = run(fed, "first_k(2/3)", rounds=1, kill=2)["rounds_s"][0]
            rows.append(
                {"wait_for_all_s": whole, "first_k_one_killed_s": cut, "longer_s": round(cut - whole, 2)}
            )
            wait_online(fed, 3)
        stock_whole = run(fed, "", rounds=1)["rounds_s"][0]
        stock_killed = run(fed, "", rounds=1, kill=2)["rounds_s"][0]
    return {
        "pairs": rows,
        "median_longer_s": statistics.median(row["longer_s"] for row in rows),
        "stock": {"wait_for_all_s": stock_whole, "one_killed_s": stock_killed},
    }


@contextmanager
def federation(
    name: str, nodes: int, configs: dict[int, dict[str, Any]] | None = None
) -> Iterator[Federation]:
    """A federation that is there for a case."""
    fed = Federation.ephemeral(nodes=nodes, name=name, node_configs=configs or {})
    try:
        fed.up(timeout_s=180)
        yield fed
    finally:
        fed.down()


def run(
    fed: Federation, spec: str, *, rounds: int, timeout: float = 3600.0, kill: int | None = None
) -> dict[str, Any]:
    """One run of the sleepy app; kills node number ``kill`` in the middle of its work."""
    overrides = {"strategy": spec, "num-rounds": rounds, "timeout": timeout}
    submitted = submit(
        fed.state_dir,
        fed.connection,
        APP,
        overrides,
        name=new_name("sleepy"),
        strategy=spec or None,
        nodes=fed.num_nodes,
    )
    lines = fed.state_dir / f"sleepy-{submitted.run_id}.jsonl"
    if kill is not None:
        wait_busy(fed, kill)
        time.sleep(WORK_S / 2)
        os.kill(next(n.pid for n in fed.status().nodes if n.name == f"here-{kill}"), signal.SIGKILL)
    asked = time.monotonic()
    while not lines.exists() or len(lines.read_text().splitlines()) <= rounds:
        time.sleep(0.2)
        if time.monotonic() - asked > 10:
            status, details = state_of(fed.state_dir, fed.connection, submitted.run_id)
            asked = time.monotonic()
            if status.startswith("finished"):
                break
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    if len(rows) <= rounds:
        sys.exit(f"the run ended early: {status} {details}")
    while not state_of(fed.state_dir, fed.connection, submitted.run_id)[0].startswith("finished"):
        time.sleep(0.5)
    times = [row["time"] for row in rows]
    return {
        "rounds_s": [round(b - a, 2) for a, b in pairwise(times)],
        "mean": rows[-1]["mean"],
        "events": list(read_events(submitted.folder / "events.jsonl")),
    }


def wait_busy(fed: Federation, node: int) -> None:
    """Wait until a node's client is at work: its log says that it has received a message."""
    path = fed.log_path(f"here-{node}")
    before = path.read_text().count("Received successfully")
    while path.read_text().count("Received successfully") <= before:
        time.sleep(0.1)


def wait_online(fed: Federation, nodes: int) -> None:
    """Wait until all nodes are back: Flower refuses a killed node's key for about a minute."""
    while fed.status().online < nodes:
        time.sleep(1)
