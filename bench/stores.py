"""The stores side by side, turn by turn, with 1, 2 and 4 processes: durable 202s, and mail from the POST to the relay's 250.

`python -m bench.stores [COUNT] [ROUNDS]`, and a part of `make bench`. The processes share one database; the load is spread
over them. The PostgreSQL server runs on this machine too, and syncs. No time is asserted.
"""

import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.__main__ import CLIENTS, TOKEN, _sent, _until, load, postroom, sink
from tests.support.postgres import PostgresServer
from tests.support.process import ServiceProcess

PROCESSES = (1, 2, 4)
Cluster = Sequence[ServiceProcess]


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


def spread(cluster: Cluster, count: int) -> list[dict[str, Any]]:
    """The load, an equal share of requests and of clients on each process, all at once."""
    share, clients = count // len(cluster), CLIENTS // len(cluster)
    with ThreadPoolExecutor(len(cluster)) as threads:
        runs = list(threads.map(lambda service: load(service.port, share, TOKEN, "template", clients), cluster))
    assert all(set(run["statuses"]) == {"202"} for run in runs), runs
    return runs


def accepting(relay_url: str, count: int, rounds: int) -> None:
    """Durable 202s; sending is held."""
    print(f"\nAccept, {CLIENTS} clients in all, {count} templated messages a round, {rounds} rounds, medians")
    for processes in PROCESSES:
        with clusters(relay_url, processes, hold="true") as found:
            runs: dict[str, list[list[dict[str, Any]]]] = {name: [] for name in found}
            for _ in range(rounds + 1):
                for name, cluster in found.items():
                    runs[name].append(spread(cluster, count))
        for name, each in runs.items():
            rate = statistics.median(sum(run["rate"] for run in turn) for turn in each[1:])
            p50, p99 = (statistics.median(max(run[key] for run in turn) for turn in each[1:]) for key in ("p50", "p99"))
            print(
                f"  {name:<12}{processes} processes {rate:7.0f}/s   p50 {p50:6.1f} ms   p99 {p99:6.1f} ms", flush=True
            )


def end_to_end(relay_url: str, what: str, count: int, rounds: int) -> None:
    """From the first POST to the last 250 at the sink."""
    print(f"\nEnd to end, POST to relay-250, into {what}, {count} messages a round, {rounds} rounds, medians")
    for processes in PROCESSES:
        with clusters(relay_url, processes) as found:
            rates: dict[str, list[float]] = {name: [] for name in found}
            for _ in range(rounds + 1):
                for name, cluster in found.items():
                    rates[name].append(_one_way(cluster, count // processes * processes))
        for name, each in rates.items():
            print(f"  {name:<12}{processes} processes {statistics.median(each[1:]):7.0f}/s", flush=True)


def _one_way(cluster: Cluster, count: int) -> float:
    """Messages a second, until any of the processes has sent the last one."""

    def sent() -> float:
        return sum(_sent(service.port) for service in cluster)

    wanted, began = sent() + count, time.perf_counter()
    spread(cluster, count)
    _until(lambda: sent() >= wanted)
    return count / (time.perf_counter() - began)


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    turns = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with tempfile.TemporaryDirectory() as place, sink(Path(place)) as (relay, program):
        accepting(relay, number, turns)
        end_to_end(relay, program, number, turns)
