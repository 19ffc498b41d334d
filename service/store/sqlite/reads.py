"""Reads: one message by id, a list by filter, the delivery log, bytes; and the threads that longer ones run in.

A list is driven by the most selective index there is for its conditions and read newest first; the statement checks
the other conditions row by row, and reading stops at the limit. So a filter that matches nothing costs a microsecond
or two for each row of its driver, without the GIL, and not a Python object.
"""

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, islice
from typing import Any, TypeVar

import apsw

from service.clock import ulid_floor
from service.errors import FieldProblem, ValidationFailed
from service.mail.address import email_key
from service.mail.lifecycle import SCHEDULED, State
from service.store.port import EventView, MessageFilter, MessageView, RecipientView
from service.store.sqlite.accept import SPAN
from service.store.sqlite.contents import assemble
from service.store.sqlite.writer import QUERIES

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

    def run(self, name: str, bindings: Any = ()) -> Any:
        """Run a named statement."""
        return self._connection.execute(QUERIES[name], bindings)

    def one(self, name: str, bindings: Any = ()) -> Any:
        """The first row, or None; the statement is finished, so that it pins no snapshot."""
        rows = self._connection.execute(QUERIES[name], bindings).fetchall()
        return rows[0] if rows else None

    def content(self, query: str, bindings: tuple[str, ...]) -> tuple[bytes, ...] | None:
        """The bytes of the message that a named statement finds."""
        row = self.one(query, bindings)
        return None if row is None else assemble(row, lambda sha: self.one("delivery_content: blob", (sha,))[0])

    # --- one message ---------------------------------------------------------------------------------------------

    def message(self, account: str, id: str) -> MessageView | None:
        """A message of an account. Its row and its recipients are read from one snapshot."""
        self._connection.execute("BEGIN")
        try:
            row = self.one("get_message: by id", (id, account))
            return self._view(row) if row else None
        finally:
            self._connection.execute("COMMIT")

    def _view(self, row: tuple[Any, ...]) -> MessageView:
        recipients = self.run("get_message: recipients", {"first": row[0] * SPAN}).fetchall()
        return _message_view(row, tuple(_recipient_view(each) for each in recipients))

    def events(self, account: str, id: str) -> list[EventView]:
        """The log of a message."""
        rows = self.run("list_events: by message", (id, account)).fetchall()
        return [
            EventView(seq, at, type, email, attempt, json.loads(data) if data else {})
            for seq, at, type, email, attempt, data in rows
        ]

    # --- lists ---------------------------------------------------------------------------------------------------

    def messages(
        self, account: str, where: MessageFilter, limit: int, after: str | None, now: int, *, waiting: bool = False
    ) -> list[tuple[int, MessageView]]:
        """Row numbers and views, newest first; with `waiting`, only messages that have a recipient in the queue."""
        if (span := self._span(account, where, after)) is None:
            return []
        driver, bindings = _pick_driver(where)
        bindings |= _conditions(where, now) | {"account": account, "waiting": waiting or None}
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


def _pick_driver(where: MessageFilter) -> tuple[str, dict[str, Any]]:
    """The index to read, and what it needs beside the conditions: ids before addresses before labels before states."""
    if where.message_id is not None:
        return "message_id", {}
    if where.provider_message_id is not None:
        return "provider_message_id", {}
    if where.recipient is not None:
        return "recipient", {}
    if where.metadata:
        name, value = where.metadata[0]
        return "metadata", {"metadata_name": name, "metadata_value": value}
    if where.tag is not None:
        return "tag", {}
    if where.status is not None:
        return "status", {}
    if where.template is not None and "@" in where.template:
        return "template", {}
    if where.from_email is not None:
        return "from_email", {}
    if where.relay is not None:
        return "relay", {}
    return "all", {}


def _conditions(where: MessageFilter, now: int) -> dict[str, Any]:
    """The bindings of the fragment `other conditions`; None is any."""
    tag, colon, value = (where.tag or "").partition(":")
    scheduled = where.status == SCHEDULED
    return {
        "from_email": where.from_email,
        "template": where.template,
        "message_id": where.message_id,
        "provider_message_id": where.provider_message_id,
        "since": where.since,
        "until": where.until,
        "scheduled_after": now if scheduled else None,
        "tag": tag if where.tag is not None else None,
        "tag_value": value if colon else None,
        "metadata": json.dumps(where.metadata) if where.metadata else None,
        "status": State.QUEUED.value if scheduled else where.status,
        "recipient": email_key(where.recipient) if where.recipient is not None else None,
        "relay": where.relay,
    }


def _recipient_view(row: tuple[Any, ...]) -> RecipientView:
    rid, email, name, kind, state, *rest = row
    return RecipientView(rid % SPAN, email, name, kind, State(state), *rest)


def _pairs(text: str | None) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in json.loads(text)) if text else ()


def _message_view(row: tuple[Any, ...], recipients: tuple[RecipientView, ...]) -> MessageView:
    (_, *front, tags, metadata, size, content_purged_at, warnings) = row
    noted = tuple(json.loads(warnings)) if warnings else ()
    values: list[Any] = [*front, _pairs(tags), _pairs(metadata), size, content_purged_at, noted, recipients]
    return MessageView(*values)
