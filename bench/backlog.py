"""What a backlog costs: `python -m bench.backlog --database sqlite|postgresql --messages 1000000`.

Two services in turn, one on a nearly empty database and one with all those messages queued on one relay that is paused.
Then the operations of the store alone, its plans on the full tables, and last the backlog is let go against a slow relay
with few connections: a fresh message of priority high and a message of another account must not wait for it. Whatever
misses its bar is said in the last column; the exit status tells whether anything did.
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench.__main__ import TOKEN, load, postroom
from bench.filling import Backlog, fill
from service.clock import SYSTEM
from service.mail.lifecycle import Event
from service.spool.keys import Keys
from service.store import open_store
from service.store.port import Store
from service.store.shown import MessageFilter
from service.store.values import RescuePolicy, Want
from tests.support.postgres import PostgresServer
from tests.support.process import ServiceProcess
from tests.support.relay_process import relays_file
from tests.support.sink_process import SinkProcess
from tests.support.store_data import settlement_of

FEW = 3000  # messages in the database that counts as empty
ACCEPTED = 1500  # in a turn
RELAY_DELAY_MS = 50  # before the relay's 250: with so few connections there is no free slot while the backlog goes
CONNECTIONS = 4
CLAIMS = 300
FRESH = 20  # messages of each kind beside the backlog
P50, P99, CLAIM_MS, FRESH_SECONDS = 1.1, 1.5, 20.0, 5.0
ROUTE = Backlog(0).route("default")
MISSED: list[str] = []


def line(title: str, few: str, full: str, bar: str = "", *, met: bool = True) -> None:
    """One row of the tables."""
    if not met:
        MISSED.append(title)
    print(f"  {title:<46}{few:>12}{full:>12}   {bar}{'' if met else '   MISSED'}".rstrip(), flush=True)


def progress(words: str) -> None:
    """What is going on, beside the tables."""
    print(f"  {words}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def databases(kind: str) -> Iterator[tuple[str, str]]:
    """URLs of two databases with the schema, both empty."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        if kind == "sqlite":
            yield f"sqlite:///{folder}/few.db", f"sqlite:///{folder}/full.db"
        else:
            server = stack.enter_context(PostgresServer())
            yield server.new_database(), server.new_database()


# --- through the service --------------------------------------------------------------------------------------------


def _memory(service: ServiceProcess) -> float:
    return float(psutil.Process(service.process.pid).memory_info().rss) / 1024**2


def _client(service: ServiceProcess, token: str = TOKEN) -> httpx.Client:
    return httpx.Client(base_url=service.url, headers={"Authorization": f"Bearer {token}"}, timeout=60)


@contextlib.contextmanager
def paused(url: str, relays: Path) -> Iterator[ServiceProcess]:
    """A service whose relay takes nothing until it is resumed."""
    with postroom("", database_url=url, relays_file=relays, lease="60s") as service:
        with _client(service) as client:
            client.post("/relays/slow/pause", json={"reason": "filling"}).raise_for_status()
        yield service


def accepting(services: Sequence[ServiceProcess], pairs: int) -> None:
    """Durable 202s, turn by turn, and what memory becomes of it."""
    runs: list[list[dict[str, Any]]] = [[], []]
    for service in services:
        load(service.port, ACCEPTED // 2, TOKEN, "low")
    before = [_memory(service) for service in services]
    for turn in range(pairs):
        for index in (0, 1) if turn % 2 == 0 else (1, 0):
            run = load(services[index].port, ACCEPTED, TOKEN, "low")
            assert set(run["statuses"]) == {"202"}, run["statuses"]
            runs[index].append(run)
        few, full = (each[-1] for each in runs)
        told = ", ".join(f"{key} {few[key]:.1f} and {full[key]:.1f} ms" for key in ("p50", "p99"))
        progress(f"pair {turn + 1} of {pairs}: {told}")
    for key, bar in (("p50", P50), ("p99", P99)):
        few, full = ([run[key] for run in each] for each in runs)
        ratio = statistics.median(b / a for a, b in zip(few, full, strict=True))
        each = " ".join(f"{b / a:.2f}" for a, b in zip(few, full, strict=True))
        title = f"accept {key}, ms: median ratio {ratio:.2f} ({each})"
        line(title, f"{statistics.median(few):.1f}", f"{statistics.median(full):.1f}", f"<= {bar} x", met=ratio <= bar)
    after = [_memory(service) for service in services]
    for title, values in (("memory before, MiB", before), ("memory after, MiB", after)):
        line(title, *(f"{value:.0f}" for value in values))


def _fresh(client: httpx.Client, name: str, priority: str) -> list[float]:
    """Seconds from the POST to the answer that the relay has taken it, one message after the other."""
    found = []
    for number in range(FRESH):
        message = {"from": "hello@lantern.example", "to": f"{name}{number}@example.net", "subject": "x", "text": "x"}
        began = time.monotonic()
        answer = client.post("/send", json={**message, "priority": priority}, headers={"Prefer": "wait=30"})
        assert answer.json()["status"] == "sent", client.get(f"/messages/{answer.json()['id']}").text
        found.append(time.monotonic() - began)
    return found


async def _key_of_another(url: str) -> str:
    """A token for another account; the API gives keys for the caller's own only."""
    store = open_store(url, SYSTEM, holder="bench")
    await store.open()
    _, token = await Keys(SYSTEM, store).create("other", "bench", ("send", "read"))
    await store.close()
    return token


def letting_go(services: Sequence[ServiceProcess], urls: Sequence[str]) -> None:
    """The backlog goes, and beside it fresh mail that must not wait for it."""
    worst: dict[str, list[float]] = {"high, same account": [], "normal, another account": []}
    for service, url in zip(services, urls, strict=True):
        token = asyncio.run(_key_of_another(url))
        with _client(service) as client:
            client.post("/relays/slow/resume").raise_for_status()
            _until_sending(client)
            worst["high, same account"].append(max(_fresh(client, "high", "high")))
            with _client(service, token) as other:
                worst["normal, another account"].append(max(_fresh(other, "other", "normal")))
    for title, (few, full) in worst.items():
        met = full <= FRESH_SECONDS
        line(f"slowest of {FRESH}, {title}, s", f"{few:.2f}", f"{full:.2f}", f"<= {FRESH_SECONDS:.0f}", met=met)
    line("memory while it is sent, MiB", *(f"{_memory(service):.0f}" for service in services))


def _until_sending(client: httpx.Client) -> None:
    deadline = time.monotonic() + 60
    while 'postroom_recipient_outcomes_total{event="sent"' not in client.get("/metrics").text:
        if time.monotonic() > deadline:
            raise TimeoutError("nothing was sent within 60 s after the relay was resumed")
        time.sleep(0.02)


# --- the store alone ------------------------------------------------------------------------------------------------


async def _times(count: int, work: Callable[[], Awaitable[Any]]) -> list[float]:
    found = []
    for _ in range(count):
        began = time.perf_counter()
        await work()
        found.append((time.perf_counter() - began) * 1000)
    return found


async def _claim(store: Store, limit: int) -> list[Any]:
    claimed = await store.claim(lambda: [Want(ROUTE, "slow", limit)], "bench", SYSTEM.now, 60)
    return list(claimed.deliveries)


async def _operations(url: str) -> dict[str, list[float]]:
    """Milliseconds of each operation, many times."""
    store = open_store(url, SYSTEM, holder="bench")
    began = time.perf_counter()
    await store.open()
    found = {"open": [(time.perf_counter() - began) * 1000]}
    now = SYSTEM.now()
    claims: list[float] = []
    settles: list[float] = []
    for _ in range(CLAIMS):
        began = time.perf_counter()
        deliveries = await _claim(store, 8)
        claims.append((time.perf_counter() - began) * 1000)
        began = time.perf_counter()
        await asyncio.gather(*(store.settle(settlement_of(one, Event.ACCEPTED, at=SYSTEM.now())) for one in deliveries))
        settles.append((time.perf_counter() - began) * 1000)
    found |= {"claim of 8": claims, "settle of 8": settles}
    others: dict[str, Callable[[], Awaitable[Any]]] = {
        "due_routes": store.due_routes,
        "stats": lambda: store.stats(SYSTEM.now()),
        "expire": lambda: store.expire(now - 86_400_000, 500),
        "rescue": lambda: store.rescue(SYSTEM.now(), RescuePolicy(900, 2, 3)),
        "heartbeat": lambda: store.heartbeat("bench", SYSTEM.now(), 60),
        "purge_content": lambda: store.purge_content(now, now - 86_400_000, 500),
        "purge_log": lambda: store.purge_log(now, now - 86_400_000, 500),
        "purge_keys": lambda: store.purge_keys(now, 86_400, 500),
        "a page": lambda: store.list_messages("default", MessageFilter(), 50, None),
        "a page by state": lambda: store.list_messages("default", MessageFilter(status="queued"), 50, None),
    }
    for name, work in others.items():
        found[name] = await _times(50, work)
    await store.close()
    return found


def operating(urls: Sequence[str]) -> None:
    """The store's operations on both databases."""
    few, full = (asyncio.run(_operations(url)) for url in urls)
    for name in few:
        bar = f"<= {CLAIM_MS:.0f} ms" if name.startswith("claim") else ""
        p99 = [_p99(found[name]) for found in (few, full)]
        line(f"{name}: p99, ms", f"{p99[0]:.2f}", f"{p99[1]:.2f}", bar, met=not bar or p99[1] <= CLAIM_MS)


def _p99(found: Sequence[float]) -> float:
    return sorted(found)[min(int(len(found) * 0.99), len(found) - 1)]


# --- plans ----------------------------------------------------------------------------------------------------------


def planning(url: str) -> None:
    """Every hot statement's plan on the full tables: what scans a table or sorts is named."""
    bad = _bad_sqlite(url.removeprefix("sqlite:///")) if url.startswith("sqlite") else _bad_postgres(url)
    line("hot statements that scan or sort", "", str(len(bad)), "none", met=not bad)
    for name in bad:
        print(f"    {name}")


def _bad_sqlite(path: str) -> list[str]:
    from service.store.sqlite.files import connect_writer
    from tests.architecture import test_sql as plans

    connection = connect_writer(path)
    try:
        hot = sorted(set(plans.QUERIES) - plans.COLD)
        return [
            name
            for name in hot
            for step in plans.plan_of(connection, name)
            if (step.startswith("SCAN") and step not in plans.OF_NO_TABLE) or "TEMP B-TREE" in step
        ]
    finally:
        connection.close()


def _bad_postgres(url: str) -> list[str]:
    import psycopg

    from service.store.bounds import Bounds
    from service.store.postgres.transaction import opening
    from tests.architecture import test_postgres_sql as plans

    with psycopg.connect(url, cursor_factory=psycopg.RawCursor) as connection:
        bounds = opening(Bounds())
        connection.execute(bounds.text.encode(), bounds.values)
        return [
            name
            for name in sorted(set(plans.PLANNED) - plans.WHOLE)
            for step in plans.steps_of(connection, name)
            if step["Node Type"] == "Seq Scan" or ("Sort" in step["Node Type"] and name not in plans.SORTED)
        ]


# --- all of it ------------------------------------------------------------------------------------------------------


def run(kind: str, count: int, pairs: int) -> None:
    """The tables of one kind of database."""
    before = os.getloadavg()
    with databases(kind) as urls, tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        sink = stack.enter_context(SinkProcess(folder, RELAY_DELAY_MS))
        url = f"smtp://127.0.0.1:{sink.port}?plaintext=allow&max_connections={CONNECTIONS}"
        relays = relays_file(folder, {"slow": {"url": f"{url}&max_messages_per_connection=100000"}})
        for each, messages in zip(urls, (FEW, count), strict=True):
            seconds = fill(each, Backlog(messages))
            progress(f"{messages:,} messages in {seconds:.0f} s")
        print(f"\n{kind}: {count:,} messages queued on one paused relay, beside {FEW:,}; {pairs} pairs, turn by turn")
        print(f"  load of the machine before the run: {', '.join(f'{each:.1f}' for each in before)}")
        line("", "few", "full")
        planning(urls[1])
        progress("the store's operations on both")
        operating(urls)
        began = time.monotonic()
        services = [stack.enter_context(paused(each, relays)) for each in urls]
        line("start of both services, s", "", f"{time.monotonic() - began:.1f}")
        accepting(services, pairs)
        progress("the backlog goes; fresh mail beside it")
        letting_go(services, urls)


def main() -> int:
    """1 when anything missed its bar."""
    parser = argparse.ArgumentParser(description="What a backlog costs.")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--pairs", type=int, default=5)
    chosen = parser.parse_args()
    run(chosen.database, chosen.messages, chosen.pairs)
    print(f"\n{'missed: ' + ', '.join(MISSED) if MISSED else 'all bars are met'}")
    return 1 if MISSED else 0


if __name__ == "__main__":
    sys.exit(main())
