"""`python -m bench.cost`: how the cost of a message grows, by dimension, with a table each.

    python -m bench.cost                         all six; twelve minutes on two busy cores
    python -m bench.cost --only relays,keys      some of depth, recipients, connections, relays, keys, templates
    python -m bench.cost --only depth --most 10000
    python -m bench.cost --rounds 7 --seconds 4  takes longer and says more
    python -m bench.cost --write                 and put tables and plots into docs/performance.md

The exit status is 1 when a copy was lost, doubled or cut. No time is asserted.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace

from bench.cost import page
from bench.cost.dimensions import DIMENSIONS
from bench.cost.measuring import Dimension, measure
from bench.rivals import report
from bench.rivals.__main__ import ended


def names(text: str) -> list[str]:
    """`relays,keys` as keys of DIMENSIONS."""
    chosen = text.split(",")
    if unknown := [each for each in chosen if each not in DIMENSIONS]:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(DIMENSIONS)}")
    return chosen


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.cost", description="How the cost of a message grows.")
    parser.add_argument("--only", type=names, default=list(DIMENSIONS), help=f"some of {','.join(DIMENSIONS)}")
    parser.add_argument("--most", type=int, default=sys.maxsize, help="leave out points above this")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5, help="about how long a turn takes")
    parser.add_argument("--write", action="store_true", help="put the results into docs/performance.md")
    return parser.parse_args(arguments)


def chosen_of(arguments: argparse.Namespace) -> list[Dimension]:
    """What is to be measured."""
    found = [DIMENSIONS[name] for name in arguments.only]
    return [replace(each, points=[value for value in each.points if value <= arguments.most]) for each in found]


def run(arguments: argparse.Namespace) -> bool:
    """All of it; whether every copy arrived."""
    machine, whole = report.machine(), True
    print(f"\nHow the cost of a message grows\n{machine}")
    for dimension in chosen_of(arguments):
        points = measure(dimension, arguments.rounds, arguments.seconds, lambda line: print(line, flush=True))
        print("\n" + page.table(dimension, points))
        if arguments.write:
            page.write(dimension, points, arguments.rounds, machine)
        whole = whole and not any(point.faults for point in points)
    return whole


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, ended)
    sys.exit(0 if run(parsed()) else 1)
