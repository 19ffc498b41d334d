"""Reads: one message by id, a list by filter, the delivery log, bytes. Each is one or two round trips, from one snapshot.

A list is driven by the most selective index there is for its conditions and read newest first; the statement checks
the other conditions row by row, and reading stops at the limit.
"""

from collections.abc import Sequence
from typing import Any

from service.clock import ulid_floor
from service.errors import FieldProblem, ValidationFailed
from service.store.postgres.contents import contents_of
from service.store.postgres.database import Database
from service.store.postgres.session import Rows
from service.store.postgres.statements import statement
from service.store.shown import EventView, MessageFilter, MessageView, RecipientView
from service.store.views import SPAN, conditions, event_view, message_view, pick_driver, recipient_view

_NEWEST = 2**50  # above any row number, and times SPAN still a bigint
_UNORDERED = 60_000  # ms: row numbers of messages further apart than this follow their times
_MORE = 4  # times as many rows are read when a page was not full, since a message may come once for each recipient


async def message(database: Database, account: str, id: str) -> MessageView | None:
    """A message of an account."""
    given = {"id": id, "account": account}
    rows, recipients = await database.read(
        statement("get_message: by id", given), statement("get_message: recipients", given)
    )
    return message_view(rows[0], tuple(map(recipient_view, recipients))) if rows else None


async def events(database: Database, account: str, id: str) -> list[EventView]:
    """The log of a message."""
    return [event_view(row) for row in await database.ask("list_events: by message", {"id": id, "account": account})]


async def content(database: Database, name: str, bindings: dict[str, Any]) -> tuple[bytes, ...] | None:
    """The bytes of the message that a named statement finds."""
    (rows,) = await database.read_alone(statement(name, bindings))
    found = contents_of(rows)
    return next(iter(found.values()), None)


async def messages(
    database: Database, account: str, where: MessageFilter, limit: int, after: str | None, now: int, *,
    waiting: bool = False,
) -> list[tuple[int, MessageView]]:  # fmt: skip
    """Row numbers and views, newest first; with `waiting`, only messages that have a recipient in the queue."""
    if (span := await _span(database, account, where, after)) is None:
        return []
    seqs = await _page(database, account, where, limit, span, conditions(where, now) | {"waiting": waiting or None})
    rows, recipients = await database.read(
        statement("get_message: by seq", {"seqs": seqs}), statement("get_message: recipients by seq", {"seqs": seqs})
    )
    of = _by_message(recipients)
    views = {row[0]: message_view(row, tuple(of.get(row[0], ()))) for row in rows}
    return [(seq, views[seq]) for seq in seqs if seq in views]


async def _page(
    database: Database, account: str, where: MessageFilter, limit: int, span: tuple[int, int], given: dict[str, Any]
) -> list[int]:
    """Row numbers of one page. A message comes once for each recipient that its driver found, one after the other."""
    driver, own = pick_driver(where)
    (oldest, before), most, found = span, limit, dict[int, None]()
    while True:
        bindings = given | own | {"account": account, "oldest": oldest, "before": before, "most": most}
        rows = await database.ask(f"list_messages: {driver}", bindings)
        found |= dict.fromkeys(seq for (seq,) in rows)
        if len(found) >= limit or len(rows) < most:
            return list(found)[:limit]
        before, most = rows[-1][0], most * _MORE


def _by_message(rows: Rows) -> dict[int, list[RecipientView]]:
    found: dict[int, list[RecipientView]] = {}
    for row in rows:
        found.setdefault(row[0] // SPAN, []).append(recipient_view(row))
    return found


async def _span(database: Database, account: str, where: MessageFilter, after: str | None) -> tuple[int, int] | None:
    """Row numbers [oldest, before) in which all matches lie; None: there are none."""
    oldest, before = 0, _NEWEST
    if where.since is not None:
        # ids and row numbers follow time but for the moments between composing and commit
        if (first := await _first_from(database, account, where.since - _UNORDERED)) is None:
            return None
        oldest = first
    if where.until is not None:
        newer = await _first_from(database, account, where.until + _UNORDERED)
        before = before if newer is None else newer
    if after is not None:
        rows: Sequence[tuple[int]] = await database.ask("list_messages: cursor", {"id": after, "account": account})
        if not rows:
            raise ValidationFailed(
                errors=[FieldProblem("#/after", "invalid_cursor", "must be the `next` of an earlier page")]
            )
        before = min(before, rows[0][0])
    return oldest, before


async def _first_from(database: Database, account: str, time: int) -> int | None:
    rows = await database.ask("list_messages: from", {"id": ulid_floor(time, "msg_"), "account": account})
    return rows[0][0] if rows else None
