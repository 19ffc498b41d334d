"""A queue with a million messages, made in a minute or two: rows as accepting writes them, past the service.

SQLite takes them by the store's own statements with syncing off; PostgreSQL by COPY. Both keep every index while they
load, so that the indexes are as grown ones are. What a message consists of is decided here once for both.
"""

import hashlib
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apsw
import psycopg

from service.clock import SYSTEM, ulid_floor
from service.store.queries import load_queries
from service.store.sqlite.files import connect_writer, migrate_file

BATCH = 10_000
SPAN = 1000  # recipients of one message: rid = message * SPAN + n
DATE = "Wed, 25 Nov 2026 12:00:00 +0000"
TEXT = "Please use this code within ten minutes.\r\n" * 20
ANSWER = b'{"id":"msg_","status":"queued","message_id":"","recipients":[{"email":"","kind":"to","status":"queued"}]}'

# columns of the rows, in the order of the store's own INSERT statements
MESSAGE = (
    "seq, id, account, message_id, created_at, scheduled_at, expires_at, closed_at, priority, delivery, route, relay,"
    " from_email, envelope_from, subject, template, tags, metadata, smtputf8, size, warnings, request, category, dsn"
)
RECIPIENT = (
    "rid, account, email, address_key, name, kind, state, route, priority, due_at, expires_at, updated_at, last_text"
)


@dataclass(frozen=True, slots=True)
class Backlog:
    """What to queue: `count` messages of these accounts in turn, due in the order of their numbers.

    sender: their From; with a pinned relay or without, it decides the route. relay: pinned, or "". first: the number of
    the first message, above those that are in the store.
    """

    count: int
    accounts: Sequence[str] = ("default",)
    sender: str = "news@lantern.example"
    relay: str = ""
    priority: int = 1
    first: int = 1

    def route(self, account: str) -> str:
        """See mail/route."""
        return f"{account}|{self.relay}|{self.sender}"


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a batch of messages, by table, without what the database fills in itself."""

    messages: list[tuple[Any, ...]]
    recipients: list[tuple[Any, ...]]
    contents: list[tuple[Any, ...]]
    requests: list[tuple[Any, ...]]
    events: list[tuple[Any, ...]]


def batches(backlog: Backlog) -> Iterator[Rows]:
    """All rows, in batches, with a line of progress for each tenth."""
    began, now = time.monotonic(), SYSTEM.now()
    for start in range(0, backlog.count, BATCH):
        count = min(BATCH, backlog.count - start)
        yield _batch(backlog, range(backlog.first + start, backlog.first + start + count), now)
        if (start + count) * 10 // backlog.count > start * 10 // backlog.count:
            rate = (start + count) / (time.monotonic() - began)
            print(f"  filled {start + count:9,} of {backlog.count:,}   {rate:7.0f}/s", file=sys.stderr, flush=True)


def _batch(backlog: Backlog, numbers: range, now: int) -> Rows:
    rows = Rows([], [], [], [], [])
    for number in numbers:
        account = backlog.accounts[number % len(backlog.accounts)]
        route, expires = backlog.route(account), now + 4 * 86_400_000
        at = now - 3_600_000 + number % 3_000_000
        mark = hashlib.blake2s(number.to_bytes(8)).digest()  # addresses and keys come in no order, ids in that of time
        id = ulid_floor(at, "msg_")[:14] + mark.hex()[:16].upper()
        email = f"{mark.hex()[:12]}@example.org"
        message_id = f"{id[4:].lower()}@lantern.example"
        body = _body(backlog.sender, email, message_id)
        rows.messages.append(
            (number, id, account, message_id, at, None, expires, None, backlog.priority,
             "at_least_once", route, backlog.relay or None, backlog.sender, backlog.sender, "Your code", "verify-email@1",
             None, None, 0, len(body), None, number, "", None)
        )  # fmt: skip
        rows.recipients.append(
            (number * SPAN, account, email, email, "", "to", "queued", route, backlog.priority, at, expires, at, "")
        )
        rows.contents.append((number, body, None))
        rows.requests.append((number, account, mark.hex(), mark, ANSWER, now + 86_400_000))
        rows.events.append((number, None, at, "accepted", None, None))
    return rows


def _body(sender: str, email: str, message_id: str) -> bytes:
    """A small message that a strict reader takes (RFC 5322 3.6)."""
    head = {"Date": DATE, "From": sender, "To": email, "Subject": "Your code", "Message-ID": f"<{message_id}>"}
    head |= {"MIME-Version": "1.0", "Content-Type": "text/plain; charset=us-ascii"}
    return ("".join(f"{name}: {value}\r\n" for name, value in head.items()) + "\r\n" + TEXT).encode()


def fill(url: str, backlog: Backlog) -> float:
    """Load a database that has its schema; the seconds it took."""
    began = time.monotonic()
    if url.startswith("sqlite"):
        _fill_sqlite(url.removeprefix("sqlite:///"), backlog)
    else:
        _fill_postgres(url, backlog)
    return time.monotonic() - began


# --- SQLite ---------------------------------------------------------------------------------------------------------


def _fill_sqlite(path: str, backlog: Backlog) -> None:
    migrate_file(path)
    queries = load_queries("sqlite")
    connection = connect_writer(path)
    connection.execute("PRAGMA synchronous=OFF")
    try:
        for rows in batches(backlog):
            with connection:
                _insert(connection, f"INSERT INTO messages ({MESSAGE})", rows.messages)
                _insert(connection, f"INSERT INTO recipients ({RECIPIENT})", rows.recipients)
                keys = "INSERT INTO requests (seq, account, key, fingerprint, answer, expires_at)"
                _insert(connection, keys, rows.requests)
                connection.executemany(queries["accept: content"], rows.contents)
                connection.executemany(queries["accept: event"], rows.events)
                connection.execute(queries["accept: count"], ("queued", len(rows.messages)))
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        connection.close()


def _insert(connection: apsw.Connection, head: str, rows: list[tuple[Any, ...]]) -> None:
    places = ", ".join("?" * len(rows[0]))
    connection.executemany(f"{head} VALUES ({places})", rows)


# --- PostgreSQL -----------------------------------------------------------------------------------------------------


def _fill_postgres(url: str, backlog: Backlog) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        for rows in batches(backlog):
            with connection.transaction():
                messages = [(*row[:18], bool(row[18]), *row[19:]) for row in rows.messages]
                _copy(connection, f"messages ({MESSAGE})", messages)
                _copy(connection, f"recipients ({RECIPIENT})", rows.recipients)
                _copy(connection, "contents (message, inline, layout)", rows.contents)
                _copy(
                    connection,
                    "requests (account, key, fingerprint, answer, expires_at)",
                    [r[1:] for r in rows.requests],
                )
                _copy(connection, "events (message, n, at, type, attempt, data)", rows.events)
                connection.execute(
                    "INSERT INTO counters (shard, state, count) VALUES (0, 'queued', %s)"
                    " ON CONFLICT (shard, state) DO UPDATE SET count = counters.count + excluded.count",
                    [len(rows.messages)],
                )
        last = backlog.first + backlog.count
        connection.execute("SELECT setval('messages_seq', greatest(%s, nextval('messages_seq')))", [last])
        connection.execute("ANALYZE")


def _copy(connection: "psycopg.Connection[Any]", into: str, rows: list[tuple[Any, ...]]) -> None:
    with connection.cursor() as cursor, cursor.copy(f"COPY {into} FROM STDIN".encode()) as copy:
        for row in rows:
            copy.write_row(row)
