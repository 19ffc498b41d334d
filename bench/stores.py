"""The stores side by side, turn by turn: durable 202s, and mail from the POST to the relay's 250.

`python -m bench.stores [COUNT] [ROUNDS]`. The PostgreSQL server runs on this machine too, and syncs. No time is asserted.
"""

import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.__main__ import CLIENTS, TOKEN, _sent, _until, load, postroom, sink
from tests.support.postgres import PostgresServer


@contextlib.contextmanager
def databases() -> Iterator[dict[str, str]]:
    """A URL of an empty database for each store."""
    with PostgresServer() as server, tempfile.TemporaryDirectory() as folder:
        yield {"SQLite": f"sqlite:///{folder}/post.db", "PostgreSQL": server.new_database()}


def accepting(relay_url: str, count: int, rounds: int) -> None:
    """Durable 202s; sending is held."""
    print(f"\nAccept, {CLIENTS} clients, {count} templated messages a round, {rounds} rounds, medians")
    with databases() as urls, contextlib.ExitStack() as stack:
        services = {
            name: stack.enter_context(postroom(relay_url, hold="true", database_url=url)) for name, url in urls.items()
        }
        runs = {name: [load(service.port, count // 4, TOKEN, "template")] for name, service in services.items()}
        for _ in range(rounds):
            for name, service in services.items():
                runs[name].append(load(service.port, count, TOKEN, "template"))
    for name, found in runs.items():
        rate, p50, p99 = (statistics.median(run[key] for run in found[1:]) for key in ("rate", "p50", "p99"))
        print(f"  {name:<12} {rate:7.0f}/s   p50 {p50:6.1f} ms   p99 {p99:6.1f} ms")


def end_to_end(relay_url: str, what: str, count: int, rounds: int) -> None:
    """From the first POST to the last 250 at the sink."""
    print(f"\nEnd to end, POST to relay-250, into {what}, {count} messages a round, {rounds} rounds, medians")
    with databases() as urls, contextlib.ExitStack() as stack:
        services = {name: stack.enter_context(postroom(relay_url, database_url=url)) for name, url in urls.items()}
        rates: dict[str, list[float]] = {name: [] for name in services}
        for _ in range(rounds + 1):
            for name, service in services.items():
                before, began = _sent(service.port), time.perf_counter()
                load(service.port, count, TOKEN, "template")
                _until(lambda port=service.port, wanted=before + count: _sent(port) >= wanted)
                rates[name].append(count / (time.perf_counter() - began))
    for name, found in rates.items():
        print(f"  {name:<12} {statistics.median(found[1:]):7.0f}/s")


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    turns = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with tempfile.TemporaryDirectory() as place, sink(Path(place)) as (relay, program):
        accepting(relay, number, turns)
        end_to_end(relay, program, number, turns)
