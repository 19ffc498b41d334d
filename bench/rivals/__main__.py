"""`python -m bench.rivals`: Postroom and its rivals end to end, turn by turn in one run, into one sink.

    python -m bench.rivals                       4 KB, 32 clients, three rounds; and latencies at 70 % of each one's rate
    python -m bench.rivals --all                 the same, and size, clients, delay, connections and TLS changed one by one
    python -m bench.rivals --size 1,100 --tls    every combination of what is given
    python -m bench.rivals --only postfix,postroom --rounds 5
    python -m bench.rivals --write               and put tables and pictures into docs/performance.md

What is not installed is installed first, into a cache folder (bench/rivals/install). The exit status is 1 when a copy was
lost, doubled or cut by anyone. No time is asserted.
"""

import argparse
import itertools
import math
import signal
import sys
from collections.abc import Iterator, Sequence

from bench.rivals import install, report
from bench.rivals.django_post_office import DjangoPostOffice
from bench.rivals.fastapi_mail import FastapiMail
from bench.rivals.haraka import Haraka
from bench.rivals.install import NotInstalled
from bench.rivals.node import Nodemailer
from bench.rivals.postfix import Postfix
from bench.rivals.postroom import Postroom, PostroomApart, PostroomApartBatch, PostroomBatch
from bench.rivals.rival import Rival
from bench.rivals.turns import Record, Rounds, ceiling
from bench.rivals.work import CONNECTIONS, SIZES, Variant

RIVALS: dict[str, type[Rival]] = {
    "postroom": Postroom,
    "batch": PostroomBatch,
    "apart": PostroomApart,
    "apart-batch": PostroomApartBatch,
    "postfix": Postfix,
    "haraka": Haraka,
    "nodemailer": Nodemailer,
    "fastapi-mail": FastapiMail,
    "post-office": DjangoPostOffice,
}
CLIENTS, DELAYS, MANY = (1, 32, 256), (0, 10, 50), (50, 100)  # MANY: connections


def numbers(text: str) -> list[int]:
    """`1,32` as numbers."""
    return [int(each) for each in text.split(",")]


def names(text: str) -> list[str]:
    """`postfix,haraka` as keys of RIVALS; Postroom itself always stands first, for the ratios."""
    chosen = text.split(",")
    if unknown := [each for each in chosen if each not in RIVALS]:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(RIVALS)}")
    return list(dict.fromkeys(["postroom", *chosen]))


def variants(chosen: argparse.Namespace) -> Iterator[Variant]:
    """What is to be measured, the base first."""
    if not chosen.all:
        for size, clients, delay, most in itertools.product(
            chosen.size, chosen.clients, chosen.delay, chosen.connections
        ):
            yield Variant(size, clients, delay, chosen.tls, most)
        return
    base = Variant()
    yield base
    yield Variant(tls=True)
    yield from (Variant(delay_ms=delay) for delay in DELAYS if delay != base.delay_ms)
    yield from (Variant(size_kb=size) for size in SIZES if size != base.size_kb)
    yield from (Variant(clients=clients) for clients in CLIENTS if clients != base.clients)
    yield from (Variant(connections=many) for many in MANY)


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.rivals", description="Postroom and its rivals, end to end.")
    parser.add_argument(
        "--all", action="store_true", help="each of size, clients, delay, connections and TLS changed by itself"
    )
    parser.add_argument("--size", type=numbers, default=[4], help="KB of a message: 1,4,100")
    parser.add_argument("--clients", type=numbers, default=[32], help="1,32,256")
    parser.add_argument(
        "--delay", type=numbers, default=[0], help="ms by which each reply of the relay is late: 0,10,50"
    )
    parser.add_argument("--connections", type=numbers, default=[CONNECTIONS], help="to the relay, at most: 20,50")
    parser.add_argument("--tls", action="store_true", help="STARTTLS and AUTH to the relay")
    parser.add_argument("--only", type=names, default=list(RIVALS), help=f"some of {','.join(RIVALS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.5, help="about how long a turn takes")
    parser.add_argument("--no-latencies", action="store_true", help="leave out the open loop")
    parser.add_argument("--write", action="store_true", help="put the results into docs/performance.md")
    return parser.parse_args(arguments)


def run(chosen: argparse.Namespace) -> bool:
    """All of it; whether every copy arrived."""
    machine = report.machine()
    print(f"\nPostroom and its rivals, end to end\n{machine}\n{install.versions()}")
    print(f"  the sink takes {_ceiling()} from smtp-source with nothing between")
    rivals = [RIVALS[name]() for name in chosen.only]
    results: list[tuple[Variant, list[Record]]] = []
    for variant in variants(chosen):
        rounds = Rounds(rivals, variant, chosen.rounds, chosen.seconds, lambda line: print(line, flush=True))
        records = rounds.run(latencies=not chosen.no_latencies and not results)
        results.append((variant, records))
        print("\n" + report.table(variant, records))
    if chosen.write:
        report.write(results, chosen.rounds, machine)
    return not any(record.faults for _, records in results for record in records)


def _ceiling() -> str:
    try:
        Postfix().prepare()
    except NotInstalled:
        return "(not measured: Postfix is not installed)"
    rate = ceiling(Variant())
    return "no number" if math.isnan(rate) else f"{rate:.0f} messages/s"


def ended(*_: object) -> None:
    """SIGTERM: leave every context, so that no rival is left running."""
    sys.exit(143)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, ended)
    sys.exit(0 if run(parsed()) else 1)
