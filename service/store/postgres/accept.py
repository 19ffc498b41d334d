"""Accepting, for a whole group at once: keys and limiters are held, each submission is decided in memory in the order of
arrival, and what may be stored is stored in a few statements.

Holding comes first, in one order, so two replicas wait for each other at most one way: a twin request on another replica
is answered by what the first one committed.
"""

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from service import failpoints
from service.errors import ConcurrentIdempotentRequests
from service.mail.address import email_key
from service.mail.lifecycle import State
from service.store.layout import Layout, lay_out
from service.store.limiter import idle_after, take
from service.store.postgres.contents import keep_blobs, keep_contents
from service.store.postgres.limits import hold, states_of, write
from service.store.postgres.moments import Moments
from service.store.postgres.statements import Statement, statement
from service.store.postgres.transaction import Transaction
from service.store.values import (
    Accept,
    Accepted,
    AcceptResult,
    IdempotencyKey,
    KeyMismatch,
    Limited,
    NewMessage,
    Replayed,
)
from service.store.views import SPAN, accepted_data, dsn_text, numbered

_CHUNK_MESSAGES, _CHUNK_BYTES = 64, 2 * 1024 * 1024  # of one round trip; others may run between two
_LARGE = 512 * 1024  # octets: the digest of more holds up the loop for too long
Name = tuple[str, str]  # account and key


@dataclass(slots=True)
class _Claimant:
    """Who a key belongs to: what was asked, and the answer that a repeat gets."""

    fingerprint: bytes
    answer: bytes
    expires_at: int = 0


@dataclass(slots=True)
class _Known:
    """What a group finds, and what it decides: states and keys as they will be when it commits."""

    first: dict[Name, _Claimant]  # what was written to hold a key
    new: dict[Name, int]  # row numbers of keys that nobody had before
    owners: dict[Name, _Claimant]
    limits: dict[str, bytes]
    written: dict[str, tuple[bytes, int]] = field(default_factory=dict)


async def accept_all(
    moments: Moments, transaction: Transaction, asked: Sequence[Accept]
) -> list[AcceptResult | Exception]:
    """What each submission comes to, committed. Raises psycopg.Error when nothing was. Limits count by `moments`."""
    known, numbers = await _hold(transaction, asked)
    results = [_decide(each, known, moments.there(each.now)) for each in asked]
    stored = [each for each, result in zip(asked, results, strict=True) if isinstance(result, Accepted)]
    rows = [await _lay_out(row) for row in _number(stored, known, numbers)]
    transaction.queued = bool(rows)
    last = await _insert(transaction, rows)
    failpoints.passed("accept.before_commit")
    await transaction.commit(*_keys(known, rows), *last, *write(known.written))
    return results


# --- hold -----------------------------------------------------------------------------------------------------------


async def _hold(transaction: Transaction, asked: Sequence[Accept]) -> tuple[_Known, list[int]]:
    """Keys first, then limiters, each in order of their names; and row numbers for all messages."""
    first = _claimants(asked)
    names = sorted(first)
    found: list[Statement] = []
    if names:
        keys = {"accounts": [account for account, _ in names], "keys": [key for _, key in names]}
        claims = {
            "fingerprints": [first[name].fingerprint for name in names],
            "answers": [first[name].answer for name in names],
            "expires_at": [first[name].expires_at for name in names],
        }
        found += [statement("accept: requests", keys | claims), statement("accept: find requests", keys)]
    found += (limits := hold(one.bucket for each in asked for one in each.takes))
    count = sum(len(each.messages) for each in asked)
    *rows, numbers = await transaction.run(*found, statement("accept: numbers", {"count": count}))
    new = {(account, key): seq for seq, account, key in rows[0]} if names else {}
    before = {(account, key): _Claimant(print_, answer) for _, account, key, print_, answer in rows[1]} if names else {}
    owners = {name: claimant for name, claimant in before.items() if name not in new}
    states = states_of(rows[-1]) if limits else {}
    return _Known(first, new, owners, states), [number for (number,) in numbers]


def _claimants(asked: Sequence[Accept]) -> dict[Name, _Claimant]:
    """The first one in the group that wants each key."""
    first: dict[Name, _Claimant] = {}
    for each in asked:
        for key, answer in _wanted(each):
            first.setdefault((each.account, key.key), _Claimant(key.fingerprint, answer, each.key_expires_at))
    return first


def _wanted(asked: Accept) -> Iterator[tuple[IdempotencyKey, bytes]]:
    if asked.key is not None:
        yield asked.key, asked.answer
    for message in asked.messages:
        if message.item is not None:
            yield IdempotencyKey(message.item.key, message.item.fingerprint), message.item.answer


# --- decide ---------------------------------------------------------------------------------------------------------


def _decide(asked: Accept, known: _Known, now: int) -> AcceptResult | Exception:
    """What it comes to; keys and limiters change only when it is accepted. now: by the clock that limits are kept by, ms."""
    if asked.key is not None and (found := find_answer(known.owners.get((asked.account, asked.key.key)), asked.key)):
        return found
    states: dict[str, tuple[bytes, int]] = {}
    for one in asked.takes:
        held = states[one.bucket][0] if one.bucket in states else known.limits.get(one.bucket)
        state, retry_after = take(held, now, one.rate, one.cost)
        if state is None:
            return Limited(one, retry_after)
        states[one.bucket] = state, idle_after(now, one.rate)
    claimed: dict[Name, _Claimant] = {}
    for key, answer in _wanted(asked):
        name = (asked.account, key.key)
        if name in known.owners or name in claimed:
            # answered between our look and this transaction: the repeat of the batch will find that answer
            return ConcurrentIdempotentRequests(retry_after=1.0)
        claimed[name] = _Claimant(key.fingerprint, answer, asked.key_expires_at)
    known.owners |= claimed
    known.written |= states
    known.limits |= {bucket: state for bucket, (state, _) in states.items()}
    return Accepted()


def find_answer(claimant: Any, key: IdempotencyKey) -> Replayed | KeyMismatch | None:
    """What a key that was used before means for this request."""
    if claimant is None:
        return None
    return Replayed(claimant.answer) if claimant.fingerprint == key.fingerprint else KeyMismatch()


# --- store ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Row:
    """A message with its row number and its request's."""

    seq: int
    message: NewMessage
    request: int | None
    item: int | None
    layout: Layout | None = None

    @property
    def laid(self) -> tuple[int, Layout]:
        """Its bytes as they are kept."""
        assert self.layout is not None
        return self.seq, self.layout


async def _lay_out(row: _Row) -> _Row:
    pieces = row.message.content
    large = row.message.size > _LARGE
    row.layout = await asyncio.to_thread(lay_out, pieces) if large else lay_out(pieces)
    return row


def _number(stored: Sequence[Accept], known: _Known, numbers: list[int]) -> Iterator[_Row]:
    given = iter(numbers)
    for each in stored:
        request = known.new[each.account, each.key.key] if each.key is not None else None
        for message in each.messages:
            item = known.new[each.account, message.item.key] if message.item is not None else None
            yield _Row(next(given), message, request, item)


def _keys(known: _Known, rows: Sequence[_Row]) -> list[Statement]:
    """What was written to hold keys becomes what it shall be."""
    nobody = sorted(seq for name, seq in known.new.items() if name not in known.owners)
    others = sorted((seq, name) for name, seq in known.new.items() if name in known.owners
                    and known.owners[name] != known.first[name])  # fmt: skip
    items = sorted((row.item, row.seq) for row in rows if row.item is not None)
    found: list[Statement] = []
    if nobody:
        found.append(statement("accept: requests of nobody", {"seqs": nobody}))
    if others:
        owners = [known.owners[name] for _, name in others]
        bindings = {
            "seqs": [seq for seq, _ in others],
            "fingerprints": [each.fingerprint for each in owners],
            "answers": [each.answer for each in owners],
            "expires_at": [each.expires_at for each in owners],
        }
        found.append(statement("accept: requests of others", bindings))
    if items:
        bindings = {"seqs": [item for item, _ in items], "messages": [seq for _, seq in items]}
        found.append(statement("accept: items of", bindings))
    return found


async def _insert(transaction: Transaction, rows: Sequence[_Row]) -> list[Statement]:
    """Send all chunks but the last, whose statements are answered: they go out with the commit."""
    for blob in keep_blobs([row.laid for row in rows]):
        await transaction.run(blob)
    last: list[Statement] = []
    for chunk in _chunks(rows):
        if last:
            await transaction.run(*last)
            await asyncio.sleep(0)
        last = _statements(transaction, chunk)
    return last


def _chunks(rows: Sequence[_Row]) -> Iterator[Sequence[_Row]]:
    first, size = 0, 0
    for index, row in enumerate(rows):
        if index > first and (index - first == _CHUNK_MESSAGES or size + row.message.size > _CHUNK_BYTES):
            yield rows[first:index]
            first, size = index, 0
        size += row.message.size
    if rows:
        yield rows[first:]


def _statements(transaction: Transaction, rows: Sequence[_Row]) -> list[Statement]:
    found = [
        *keep_contents([row.laid for row in rows]),
        statement("accept: messages", {"rows": [_message(row) for row in rows]}),
        statement("accept: recipients", {"rows": [each for row in rows for each in _recipients(transaction, row)]}),
        statement("accept: events", {"rows": [_event(row) for row in rows]}),
    ]
    if tags := [_label(row, *each) for row in rows for each in row.message.tags]:
        found.append(statement("accept: tags", {"rows": tags}))
    if metadata := [_label(row, *each) for row in rows for each in row.message.metadata]:
        found.append(statement("accept: metadata", {"rows": metadata}))
    return found


def _message(row: _Row) -> dict[str, Any]:
    message = row.message
    waiting = any(recipient.state is State.QUEUED for recipient in message.recipients)
    return {
        "seq": row.seq,
        "id": message.id,
        "account": message.account,
        "message_id": message.message_id,
        "created_at": message.created_at,
        "scheduled_at": message.scheduled_at,
        "expires_at": message.expires_at,
        "closed_at": None if waiting else message.created_at,
        "priority": message.priority,
        "delivery": message.delivery,
        "route": message.route,
        "relay": message.relay,
        "from_email": message.from_email,
        "envelope_from": message.envelope_from,
        "subject": message.subject,
        "template": message.template,
        "tags": json.dumps(message.tags) if message.tags else None,
        "metadata": json.dumps(message.metadata) if message.metadata else None,
        "smtputf8": message.smtputf8,
        "size": message.size,
        "warnings": json.dumps(message.warnings) if message.warnings else None,
        "request": row.request,
        "category": message.category,
        "dsn": dsn_text(message),
    }


def _recipients(transaction: Transaction, row: _Row) -> Iterator[dict[str, Any]]:
    message = row.message
    for n, recipient in numbered(message):
        transaction.move(None, recipient.state)
        yield {
            "rid": row.seq * SPAN + n,
            "account": message.account,
            "email": recipient.email,
            "address_key": email_key(recipient.email),
            "name": recipient.name,
            "kind": recipient.kind,
            "state": recipient.state.value,
            "route": message.route,
            "priority": message.priority,
            "due_at": message.due_at if recipient.state is State.QUEUED else None,
            "expires_at": message.expires_at,
            "updated_at": message.created_at,
        }


def _label(row: _Row, name: str, value: str) -> dict[str, Any]:
    return {"account": row.message.account, "name": name, "value": value, "message": row.seq}


def _event(row: _Row) -> dict[str, Any]:
    at = row.message.created_at
    return {
        "message": row.seq,
        "n": None,
        "at": at,
        "type": "accepted",
        "attempt": None,
        "data": accepted_data(row.message),
    }
