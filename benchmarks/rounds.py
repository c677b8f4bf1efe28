"""Rounds, stock Flower beside flower-hpc, on real processes of this machine.

    uv run python benchmarks/rounds.py [--case CASE ...] [--json] [--quick]

columns    4 nodes that do no work, models of three sizes: stock SuperLink, ours on SuperLink, ours on MPI,
           Flower's Ray simulation; seconds a round, MB/s, memory; ``--columns mpi,ours``: these alone.
first-step from a message to the first training step of an app that imports torch: stock, and a warm client.
pull       from a message to the start of its process: asked for directly, and through the gateway.
logical    64 nodes on 4 worker ranks: the accuracy of InProcessGrid, the time of Ray's simulation.
thousand   1,000 nodes on 4 worker ranks with a model of 1 MB: memory of rank 0.
plain, straggler, killed
           nodes that are slow, or die; see timing/slow_nodes.py.

Where there is a bar, it is printed beside what was measured; all sides of a case are measured in one run.
"""

import argparse
import json
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from timing.columns import COLUMNS, measure_columns, show_columns
from timing.first_step import measure_first_step, show_first_step
from timing.logical import measure_logical, show_logical
from timing.programs import Failed
from timing.pull import measure_pull, show_pull
from timing.saying import say
from timing.slow_nodes import killed, plain, straggler
from timing.thousand import measure_thousand, show_thousand

from flower_hpc.errors import FlowerHpcError

Found = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One case: a word for the help, how it is measured, and how it is shown."""

    words: str
    measure: Callable[[argparse.Namespace], Found]
    show: Callable[[Found], None]


def show_json(found: Found) -> None:
    """As it is."""
    print(json.dumps(found, indent=2))


CASES = {
    "columns": Case(
        "what a round costs: SuperLink, MPI, Ray",
        lambda args: measure_columns(args.columns, args.rounds, args.quick),
        show_columns,
    ),
    "first-step": Case(
        "message to first training step, stock and warm",
        lambda args: measure_first_step(2 if args.quick else 7),
        show_first_step,
    ),
    "pull": Case(
        "message to its process, asked for directly and through the gateway",
        lambda args: measure_pull(2 if args.quick else 7),
        show_pull,
    ),
    "logical": Case(
        "64 nodes on 4 ranks learn as on InProcessGrid",
        lambda args: measure_logical(args.quick),
        show_logical,
    ),
    "thousand": Case(
        "1,000 nodes on 4 ranks, memory", lambda args: measure_thousand(args.quick), show_thousand
    ),
    "plain": Case("a round without work on a SuperLink", lambda args: plain(), show_json),
    "straggler": Case("one node of two is slow", lambda args: straggler(), show_json),
    "killed": Case("a SuperNode dies in mid-round", lambda args: killed(args.pairs), show_json),
}


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        self.exit(2, f"error: {message}\n")


def read_arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = Parser(description=__doc__.splitlines()[0])
    words = "; ".join(f"{name}: {case.words}" for name, case in CASES.items())
    parser.add_argument("--case", choices=CASES, action="append", help=f"default: all. {words}")
    parser.add_argument(
        "--columns", type=columns, default=tuple(COLUMNS), help=f"of columns: {','.join(COLUMNS)} (default)"
    )
    parser.add_argument(
        "--rounds",
        type=positive,
        help="of columns: with a SuperLink, after the first (default: 5); more where they are short",
    )
    parser.add_argument("--pairs", type=positive, default=5, help="pairs of the killed case (default: 5)")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller models; not for figures")
    parser.add_argument("--json", action="store_true", help="print the JSON object alone")
    return parser.parse_args()


def columns(text: str) -> tuple[str, ...]:
    """Names with commas."""
    names = tuple(dict.fromkeys(text.split(",")))
    if unknown := [name for name in names if name not in COLUMNS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(COLUMNS)}")
    return names


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, got {text!r}")
    return int(text)


def main() -> None:
    """Run the cases, print tables and one JSON object."""
    args, result = read_arguments(), {}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    for name in args.case or CASES:
        say(f"case {name} ...")
        try:
            result[name] = CASES[name].measure(args)
        except (Failed, FlowerHpcError) as error:
            sys.exit(f"error: case {name}: {error}")
        if not args.json:
            CASES[name].show(result[name])
    print(json.dumps(result))
    if any(found.get("failed") for found in result.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
