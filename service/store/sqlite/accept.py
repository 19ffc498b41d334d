"""Accepting: key, limiters, messages, recipients, bytes and log, all in the caller's one transaction."""

import json
from collections.abc import Sequence
from typing import Any

from service import failpoints
from service.errors import ConcurrentIdempotentRequests
from service.mail.address import email_key
from service.mail.lifecycle import State
from service.store.limiter import idle_after, take
from service.store.sqlite.contents import insert_contents
from service.store.sqlite.transaction import Steps, Transaction
from service.store.values import (
    Accept,
    Accepted,
    AcceptResult,
    IdempotencyKey,
    KeyMismatch,
    Limited,
    NewMessage,
    Replayed,
    Take,
)
from service.store.views import SPAN, accepted_data, dsn_text, numbered


class Refused(Exception):
    """Roll this operation back and answer `result`."""

    def __init__(self, result: AcceptResult) -> None:
        self.result = result


_AT_ONCE = 16  # messages, or takes, for which each statement is run in one call: a third of a millisecond


def accept(transaction: Transaction, asked: Accept) -> Steps[AcceptResult]:
    """Store a submission, pausing between some of its messages and others. Raises Refused when nothing may be stored."""
    request = None
    if asked.key is not None:
        request = _keep_answer(transaction, asked.account, asked.key, asked.answer, asked.key_expires_at)
    for start in range(0, len(asked.takes), _AT_ONCE):
        if start:
            yield _AT_ONCE
        _take(transaction, asked.takes[start : start + _AT_ONCE], asked.now)
    for start in range(0, len(asked.messages), _AT_ONCE):
        if start:
            yield _AT_ONCE
        messages = asked.messages[start : start + _AT_ONCE]
        items = [_keep_item(transaction, message, asked) for message in messages]
        seqs = _insert(transaction, messages, request)
        if any(items):
            transaction.each("accept: item of", [(seq, item) for seq, item in zip(seqs, items, strict=True) if item])
    transaction.queued = True
    failpoints.passed("accept.before_commit")
    return Accepted()


def find_answer(row: tuple[int, bytes, bytes] | None, key: IdempotencyKey) -> Replayed | KeyMismatch | None:
    """What the stored request means for this one."""
    if row is None:
        return None
    _, fingerprint, answer = row
    return Replayed(answer) if fingerprint == key.fingerprint else KeyMismatch()


def _keep_answer(transaction: Transaction, account: str, key: IdempotencyKey, answer: bytes, expires_at: int) -> int:
    row = transaction.one("accept: find request", {"account": account, "key": key.key})
    if (found := find_answer(row, key)) is not None:
        raise Refused(found)
    transaction.run(
        "accept: request",
        {
            "account": account,
            "key": key.key,
            "fingerprint": key.fingerprint,
            "answer": answer,
            "expires_at": expires_at,
        },
    )
    return transaction.inserted()


def _keep_item(transaction: Transaction, message: NewMessage, asked: Accept) -> int | None:
    if (item := message.item) is None:
        return None
    try:
        key = IdempotencyKey(item.key, item.fingerprint)
        return _keep_answer(transaction, asked.account, key, item.answer, asked.key_expires_at)
    except Refused:
        # answered between our look and this transaction: the repeat of the batch will find that answer
        raise ConcurrentIdempotentRequests(retry_after=1.0) from None


def _take(transaction: Transaction, some: Sequence[Take], now: int) -> None:
    """Take from limiters, in that order: two of one bucket count together. Raises Refused."""
    buckets = {each.bucket: each.rate for each in some}
    states = dict(transaction.each("accept: find limit", [(bucket,) for bucket in buckets]))
    for asked in some:
        state, retry_after = take(states.get(asked.bucket), now, asked.rate, asked.cost)
        if state is None:
            raise Refused(Limited(asked, retry_after))
        states[asked.bucket] = state
    transaction.each(
        "accept: limit", [(bucket, states[bucket], idle_after(now, rate)) for bucket, rate in buckets.items()]
    )


def _insert(transaction: Transaction, messages: Sequence[NewMessage], request: int | None) -> Sequence[int]:
    """The rows of some messages, table by table; their row numbers."""
    transaction.each("accept: message", [_row(message, request) for message in messages])
    # nobody else writes meanwhile, so that each row has the number after the one before
    last = transaction.inserted()
    seqs = range(last - len(messages) + 1, last + 1)
    recipients: list[tuple[Any, ...]] = []
    contents: list[tuple[int, Sequence[bytes]]] = []
    events: list[tuple[Any, ...]] = []
    for seq, message in zip(seqs, messages, strict=True):
        recipients += _recipients(transaction, message, seq)
        contents.append((seq, message.content))
        events.append((seq, None, message.created_at, "accepted", None, accepted_data(message)))
        if message.tags or message.metadata:
            _insert_labels(transaction, message, seq)
    transaction.each("accept: recipient", recipients)
    insert_contents(transaction, contents)
    transaction.each("accept: event", events)
    return seqs


def _row(message: NewMessage, request: int | None) -> tuple[Any, ...]:
    waiting = any(recipient.state is State.QUEUED for recipient in message.recipients)
    return (
        message.id,
        message.account,
        message.message_id,
        message.created_at,
        message.scheduled_at,
        message.expires_at,
        None if waiting else message.created_at,
        message.priority,
        message.delivery,
        message.route,
        message.relay,
        message.from_email,
        message.envelope_from,
        message.subject,
        message.template,
        json.dumps(message.tags) if message.tags else None,
        json.dumps(message.metadata) if message.metadata else None,
        int(message.smtputf8),
        message.size,
        json.dumps(message.warnings) if message.warnings else None,
        request,
        message.category,
        dsn_text(message),
    )


def _recipients(transaction: Transaction, message: NewMessage, seq: int) -> list[tuple[Any, ...]]:
    """The rows of a message's recipients, which are counted."""
    rows: list[tuple[Any, ...]] = []
    for n, recipient in numbered(message):
        transaction.move(None, recipient.state)
        rows.append(
            (
                seq * SPAN + n,
                message.account,
                recipient.email,
                email_key(recipient.email),
                recipient.name,
                recipient.kind,
                recipient.state.value,
                message.route,
                message.priority,
                message.due_at if recipient.state is State.QUEUED else None,
                message.expires_at,
                message.created_at,
            )
        )
    return rows


def _insert_labels(transaction: Transaction, message: NewMessage, seq: int) -> None:
    transaction.each("accept: tag", [(message.account, *tag, seq) for tag in message.tags])
    transaction.each("accept: metadata", [(message.account, *pair, seq) for pair in message.metadata])
