"""Reads: one message by id, a list by filter, the delivery log, bytes; and the threads that longer ones run in.

A list is driven by the most selective index there is for its conditions and read newest first; the statement checks
the other conditions row by row, and reading stops at the limit. So a filter that matches nothing costs a microsecond
or two for each row of its driver, without the GIL, and not a Python object.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, islice
from typing import Any, TypeVar

import apsw

from service.clock import ulid_floor
from service.errors import FieldProblem, ValidationFailed
from service.store.layout import assemble
from service.store.shown import EventView, MessageFilter, MessageView
from service.store.sqlite.transaction import QUERIES, shared_piece
from service.store.views import SPAN, conditions, event_view, message_view, pick_driver, recipient_view

T = TypeVar("T")
_NEWEST = 2**50  # above any row number, and times SPAN still an integer of SQLite
_UNORDERED = 60_000  # ms: row numbers of messages further apart than this follow their times


class Reader:
    """Reads on one connection; not for two threads at once."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    @contextlib.contextmanager
    def _snapshot(self) -> Iterator[None]:
        """What several statements read is of one moment."""
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            if (
                self._connection.in_transaction
            ):  # after a fault of the disk SQLite has rolled back, and that is what is told
                self._connection.execute("COMMIT")

    def run(self, name: str, bindings: Any = ()) -> Any:
        """Run a named statement."""
        return self._connection.execute(QUERIES[name], bindings)

    def one(self, name: str, bindings: Any = ()) -> Any:
        """The first row, or None; the statement is finished, so that it pins no snapshot."""
        rows = self._connection.execute(QUERIES[name], bindings).fetchall()
        return rows[0] if rows else None

    def each(self, name: str, bindings: Sequence[Any]) -> list[Any]:
        """Run a named statement with each of `bindings` in turn, in one snapshot; the rows of all of them."""
        if len(bindings) == 1:
            return list(self._connection.execute(QUERIES[name], bindings[0]))
        with self._snapshot():
            return list(self._connection.executemany(QUERIES[name], bindings))

    def content(self, query: str, bindings: tuple[str, ...]) -> tuple[bytes, ...] | None:
        """The bytes of the message that a named statement finds, all from one snapshot."""
        with self._snapshot():
            if (row := self.one(query, bindings)) is None:
                return None
            _, inline, places = row
            return assemble(inline, places, lambda sha: shared_piece(self._connection, sha))

    # --- one message ---------------------------------------------------------------------------------------------

    def message(self, account: str, id: str) -> MessageView | None:
        """A message of an account. Its row and its recipients are read from one snapshot."""
        with self._snapshot():
            row = self.one("get_message: by id", (id, account))
            return self._view(row) if row else None

    def _view(self, row: tuple[Any, ...]) -> MessageView:
        recipients = self.run("get_message: recipients", {"first": row[0] * SPAN}).fetchall()
        return message_view(row, tuple(map(recipient_view, recipients)))

    def events(self, account: str, id: str) -> list[EventView]:
        """The log of a message."""
        rows = self.run("list_events: by message", (id, account)).fetchall()
        return [event_view(row) for row in rows]

    # --- lists ---------------------------------------------------------------------------------------------------

    def messages(
        self, account: str, where: MessageFilter, limit: int, after: str | None, now: int, *, waiting: bool = False
    ) -> list[tuple[int, MessageView]]:
        """Row numbers and views, newest first; with `waiting`, only messages that have a recipient in the queue."""
        if (span := self._span(account, where, after)) is None:
            return []
        driver, bindings = pick_driver(where)
        bindings |= conditions(where, now) | {"account": account, "waiting": waiting or None}
        bindings["oldest"], bindings["before"] = span
        # a message comes once for each recipient that its driver found, one after the other
        seqs = (seq for seq, _ in groupby(self.run(f"list_messages: {driver}", bindings)))
        return [(seq, self._view(self.one("get_message: by seq", (seq,)))) for (seq,) in islice(seqs, limit)]

    def _span(self, account: str, where: MessageFilter, after: str | None) -> tuple[int, int] | None:
        """Row numbers [oldest, before) in which all matches lie; None: there are none."""
        oldest, before = 0, _NEWEST
        if where.since is not None:
            # ids and row numbers follow time but for the moments between composing and commit
            if (first := self._first_from(account, where.since - _UNORDERED)) is None:
                return None
            oldest = first
        if where.until is not None and (newer := self._first_from(account, where.until + _UNORDERED)) is not None:
            before = newer
        if after is not None:
            if (row := self.one("list_messages: cursor", (after, account))) is None:
                raise ValidationFailed(
                    errors=[FieldProblem("#/after", "invalid_cursor", "must be the `next` of an earlier page")]
                )
            before = min(before, row[0])
        return oldest, before

    def _first_from(self, account: str, time: int) -> int | None:
        row = self.one("list_messages: from", (ulid_floor(time, "msg_"), account))
        return row[0] if row else None


class Readers:
    """Threads for longer reads, each with a connection of its own. What one kind of read waits for, another must not."""

    def __init__(self, connect: Callable[[], apsw.Connection], threads: int, name: str) -> None:
        self._connect = connect
        self._threads = ThreadPoolExecutor(threads, name)
        self._local = threading.local()
        self._all: list[Reader] = []

    async def run(self, work: Callable[[Reader], T]) -> T:
        """`work` in a thread. Raises apsw.Error."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: work(self._mine()))

    def _mine(self) -> Reader:
        reader: Reader | None = getattr(self._local, "reader", None)
        if reader is None:
            reader = self._local.reader = Reader(self._connect())
            self._all.append(reader)
        return reader

    def close(self) -> None:
        """Wait for what runs, close the connections."""
        self._threads.shutdown()
        for reader in self._all:
            reader.close()
