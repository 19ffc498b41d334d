"""The stores side by side, turn by turn, with 1, 2 and 4 processes: durable 202s, and mail from the POST to the relay's 250.

`python -m bench.stores [COUNT] [ROUNDS]`, and a part of `make bench`. The processes share one database; the load is spread
over them. The PostgreSQL server runs on this machine too, and syncs. Each turn is told on stderr, the table comes last, in
Markdown. No time is asserted.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.__main__ import CLIENTS, TOKEN, _sent, _until, load, postroom, sink
from tests.support.postgres import PostgresServer, programs
from tests.support.process import ServiceProcess

PROCESSES = (1, 2, 4)
Cluster = Sequence[ServiceProcess]


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn measured: messages a second, and the latency of their 202s in milliseconds."""

    rate: float
    p50: float
    p99: float


Measured = dict[tuple[str, int], list[Turn]]  # by store and number of processes


@contextlib.contextmanager
def databases() -> Iterator[dict[str, str]]:
    """A URL of an empty database for each store."""
    with PostgresServer() as server, tempfile.TemporaryDirectory() as folder:
        yield {"SQLite": f"sqlite:///{folder}/post.db", "PostgreSQL": server.new_database()}


@contextlib.contextmanager
def clusters(relay_url: str, processes: int, **settings: Any) -> Iterator[dict[str, Cluster]]:
    """So many services on each store."""
    with databases() as urls, contextlib.ExitStack() as stack:
        yield {
            name: [stack.enter_context(postroom(relay_url, database_url=url, **settings)) for _ in range(processes)]
            for name, url in urls.items()
        }


def spread(cluster: Cluster, count: int) -> dict[str, Any]:
    """The load, an equal share of clients on each process."""
    run = load(",".join(str(service.port) for service in cluster), count, TOKEN, "template")
    assert set(run["statuses"]) == {"202"}, run
    return run


def measure(
    title: str, turn: Callable[[Cluster, int], Turn], relay_url: str, count: int, rounds: int, **settings: Any
) -> Measured:
    """Turns of all stores and numbers of processes; the first turn of each warms up and is not counted."""
    found: Measured = {}
    for processes in PROCESSES:
        with clusters(relay_url, processes, **settings) as stores:
            for number in range(rounds + 1):
                for name, cluster in stores.items():
                    taken = turn(cluster, count)
                    counted = f"round {number} of {rounds}" if number else "warm-up"
                    print(f"  {title}, {name}, {processes} processes, {counted}: {taken.rate:.0f}/s", file=sys.stderr)
                    if number:
                        found.setdefault((name, processes), []).append(taken)
    return found


def accepted(cluster: Cluster, count: int) -> Turn:
    """Durable 202s."""
    run = spread(cluster, count)
    return Turn(run["rate"], run["p50"], run["p99"])


def sent(cluster: Cluster, count: int) -> Turn:
    """From the first POST to the last 250 at the sink, whichever process got it."""

    def done() -> float:
        return sum(_sent(service.port) for service in cluster)

    wanted = done() + count
    run = spread(cluster, count)
    _until(lambda: done() >= wanted)
    return Turn(count / (time.monotonic() - run["began"]), run["p50"], run["p99"])


def compare(relay_url: str, what: str, count: int, rounds: int) -> None:
    """Measure, and print the table."""
    before, folder = ", ".join(f"{each:.1f}" for each in os.getloadavg()), programs()
    assert folder is not None
    version = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    accepting = measure("durable 202s", accepted, relay_url, count, rounds, hold="true")
    sending = measure("POST to 250", sent, relay_url, count, rounds)
    print(
        f"\nThe stores, {CLIENTS} clients in all, {count} templated messages a round, {rounds} rounds, medians (least and most"
        f" in brackets), into {what}; {version.strip()}; load before the run {before}\n"
    )
    print(
        "| | processes | durable 202s, /s | p50, ms | p99, ms | POST to the relay's 250, /s |\n|---|---|---|---|---|---|"
    )
    for name, processes in sorted(accepting, key=lambda key: (key[0] != "SQLite", key[1])):
        turns, ends = accepting[name, processes], sending[name, processes]
        p50, p99 = (statistics.median(values) for values in zip(*((turn.p50, turn.p99) for turn in turns), strict=True))
        print(f"| {name} | {processes} | {_rates(turns)} | {p50:.0f} | {p99:.0f} | {_rates(ends)} |", flush=True)


def _rates(turns: Sequence[Turn]) -> str:
    rates = [turn.rate for turn in turns]
    return f"{statistics.median(rates):.0f} ({min(rates):.0f}-{max(rates):.0f})"


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    turns = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with tempfile.TemporaryDirectory() as place, sink(Path(place)) as (relay, program):
        compare(relay, program, number, turns)
