"""Accepting: key, limiters, messages, recipients, bytes and log, all in the caller's one transaction."""

import json

from service import failpoints
from service.errors import ConcurrentIdempotentRequests
from service.mail.address import email_key
from service.mail.lifecycle import State
from service.store.limiter import idle_after, take
from service.store.sqlite.contents import insert_content
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


def accept(transaction: Transaction, asked: Accept) -> Steps[AcceptResult]:
    """Store a submission, pausing between its messages. Raises Refused when nothing may be stored."""
    request = None
    if asked.key is not None:
        request = _keep_answer(transaction, asked.account, asked.key, asked.answer, asked.key_expires_at)
    for one in asked.takes:
        _take(transaction, one, asked.now)
    for number, message in enumerate(asked.messages):
        if number:
            yield
        item = _keep_item(transaction, message, asked)
        seq = _insert(transaction, message, request)
        if item is not None:
            transaction.run("accept: item of", (seq, item))
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


def _take(transaction: Transaction, asked: Take, now: int) -> None:
    row = transaction.one("accept: find limit", {"bucket": asked.bucket})
    state, retry_after = take(row[0] if row else None, now, asked.rate, asked.cost)
    if state is None:
        raise Refused(Limited(asked, retry_after))
    transaction.run(
        "accept: limit", {"bucket": asked.bucket, "state": state, "idle_after": idle_after(now, asked.rate)}
    )


def _insert(transaction: Transaction, message: NewMessage, request: int | None) -> int:
    waiting = any(recipient.state is State.QUEUED for recipient in message.recipients)
    transaction.run(
        "accept: message",
        (
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
        ),
    )
    seq = transaction.inserted()
    _insert_recipients(transaction, message, seq)
    insert_content(transaction, seq, message.content)
    for name, value in message.tags:
        transaction.run("accept: tag", (message.account, name, value, seq))
    for name, value in message.metadata:
        transaction.run("accept: metadata", (message.account, name, value, seq))
    transaction.run("accept: event", (seq, None, message.created_at, "accepted", None, accepted_data(message)))
    return seq


def _insert_recipients(transaction: Transaction, message: NewMessage, seq: int) -> None:
    for n, recipient in numbered(message):
        transaction.run(
            "accept: recipient",
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
            ),
        )
        transaction.move(None, recipient.state)
