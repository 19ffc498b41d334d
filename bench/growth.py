"""Whether files and tables stay flat: `python -m bench.growth --database sqlite|postgresql --cycles 12`.

Each cycle is a day on a clock that the store is given: messages are accepted, claimed, settled as sent, and what retention
says is purged: bytes after one cycle, the log after three (`--log-days`). From the next cycle on as much goes as comes. What was
deleted is cleared away once it is a share of a table, so sizes grow by about that share first; after as many cycles again they
must stay where they are. Autovacuum runs by the wall clock, so PostgreSQL is told to look every second instead of every
minute, and a cycle ends when autovacuum finds nothing more to do: it has a day for that.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import apsw
import psycopg

from service.clock import Clock, ulid_floor
from service.mail.lifecycle import Event
from service.store import open_store
from service.store.port import Store
from service.store.values import Accept, IdempotencyKey, NewMessage, Want
from tests.support.postgres import PostgresServer
from tests.support.store_data import new_message, settlement_of

DAY = 86_400_000  # ms
CONTENT_DAYS = 1
BATCH = 500
BODY = (b"Subject: Your code\r\n\r\n" + b"Please use this code within ten minutes.\r\n" * 24,)
TABLES = ("messages", "recipients", "attempts", "events", "contents", "requests")
FLAT = 1.1  # the last cycle's size by that of the cycle from which on sizes must stay
QUIET, VACUUMED_WITHIN = 3.0, 60.0  # seconds


class Days(Clock):
    """The system's clock with a wall clock of its own, which goes on by a day at a time."""

    def __init__(self) -> None:
        self.at = super().now()

    def now(self) -> int:
        return self.at


Sizes = Callable[[], dict[str, int]]  # octets by name


@contextmanager
def database(kind: str) -> Iterator[tuple[str, Sizes]]:
    """An empty database's URL, and how large it is."""
    if kind == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/post.db"
            yield f"sqlite:///{path}", lambda: _sqlite_sizes(path)
        return
    with PostgresServer() as server:
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET autovacuum_naptime = '1s'")
            connection.execute("SELECT pg_reload_conf()")
        url = server.new_database()
        yield url, lambda: _postgres_sizes(url)


def _sqlite_sizes(path: str) -> dict[str, int]:
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
    try:
        names = ("page_size", "page_count", "freelist_count")
        page, pages, free = (int(str(connection.execute(f"PRAGMA {name}").fetchall()[0][0])) for name in names)
    finally:
        connection.close()
    wal = Path(f"{path}-wal").stat().st_size
    return {"all": page * pages, "of it free": page * free, "log (-wal)": wal}


def _wait_for_autovacuum(url: str) -> None:
    """Until it has looked a few times and found nothing to do."""
    quiet_since, seen, deadline = time.monotonic(), -1, time.monotonic() + VACUUMED_WITHIN
    with psycopg.connect(url, autocommit=True) as connection:
        while time.monotonic() - quiet_since < QUIET and time.monotonic() < deadline:
            row = connection.execute(
                "SELECT (SELECT sum(autovacuum_count) FROM pg_stat_all_tables)::bigint,"
                " (SELECT count(*) FROM pg_stat_progress_vacuum)"
            ).fetchone()
            assert row is not None
            if row != (seen, 0):
                quiet_since, seen = time.monotonic(), int(row[0])
            time.sleep(0.1)


def _postgres_sizes(url: str) -> dict[str, int]:
    _wait_for_autovacuum(url)
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
        assert row is not None
        found = {"all": int(row[0])}
        for table in TABLES:
            row = connection.execute("SELECT pg_total_relation_size(%s::regclass)", [table]).fetchone()
            assert row is not None
            found[table] = int(row[0])
        row = connection.execute("SELECT sum(pg_indexes_size(oid)) FROM pg_class WHERE relkind = 'r'").fetchone()
        assert row is not None
        found["indexes of all"] = int(row[0])
    return found


def _messages(cycle: int, count: int, now: int) -> list[NewMessage]:
    found = []
    for number in range(count):
        id = ulid_floor(now, "msg_")[:14] + f"{cycle * 10_000_000 + number:016d}"
        one = new_message(1, (f"user{number}@example.org",), id=id, message_id=f"{id}@example.com", content=BODY)
        found.append(replace(one, created_at=now, due_at=now, expires_at=now + 4 * DAY, size=len(BODY[0])))
    return found


async def _day(store: Store, clock: Days, cycle: int, count: int, log_days: int) -> None:
    """Accept, send, and purge what is old enough."""
    messages = _messages(cycle, count, clock.at)
    for start in range(0, count, 50):
        await asyncio.gather(*(_accept(store, one, clock.at) for one in messages[start : start + 50]))
        claimed = await store.claim(lambda: [Want("acme||", "r", 50)], "growth", clock.now, 60)
        done = (settlement_of(each, Event.ACCEPTED, at=clock.at) for each in claimed.deliveries)
        await asyncio.gather(*map(store.settle, done))
    clock.at += DAY
    while await store.purge_content(clock.at, clock.at - CONTENT_DAYS * DAY + 1, BATCH):
        pass
    while await store.purge_log(clock.at, clock.at - log_days * DAY + 1, BATCH):
        pass
    while await store.purge_keys(clock.at, 0, BATCH):
        pass


async def _accept(store: Store, message: NewMessage, now: int) -> None:
    key = IdempotencyKey(message.id, b"f" * 32)
    await store.accept(Accept("acme", [message], now, b"answer" * 40, key, now + DAY))


async def run(kind: str, cycles: int, count: int, log_days: int) -> bool:
    """The table of sizes; whether they stayed flat."""
    clock, alls = Days(), []
    with database(kind) as (url, sizes):
        store = open_store(url, clock, holder="growth")
        await store.open()
        print(f"{kind}: {count} messages a cycle; bytes kept {CONTENT_DAYS} cycle, the log {log_days}; MiB after each")
        for cycle in range(1, cycles + 1):
            began = time.monotonic()
            await _day(store, clock, cycle, count, log_days)
            found = sizes()
            alls.append(found["all"])
            told = "  ".join(f"{name} {size / 1024**2:.1f}" for name, size in found.items())
            print(f"  {cycle:3}  {told}   ({time.monotonic() - began:.0f} s)", flush=True)
        await store.close()
    first, steady = alls[log_days], alls[2 * log_days]
    print(f"  last by that of cycle {log_days + 1}: {alls[-1] / first:.2f}")
    print(f"  last by that of cycle {2 * log_days + 1}: {alls[-1] / steady:.2f} (bar {FLAT})")
    return alls[-1] <= FLAT * steady


def main() -> int:
    """1 when sizes grew."""
    parser = argparse.ArgumentParser(description="Whether files and tables stay flat.")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--cycles", type=int, default=12)
    parser.add_argument("--messages", type=int, default=2000, help="in a cycle")
    parser.add_argument("--log-days", type=int, default=3, help="cycles for which the log is kept")
    chosen = parser.parse_args()
    if chosen.cycles <= 2 * chosen.log_days + 1:
        parser.error(f"--cycles must be more than {2 * chosen.log_days + 1}: before that sizes grow")
    return 0 if asyncio.run(run(chosen.database, chosen.cycles, chosen.messages, chosen.log_days)) else 1


if __name__ == "__main__":
    sys.exit(main())
