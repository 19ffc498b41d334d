"""Accepting: key, limiters, messages, recipients, bytes and log, all in the caller's one transaction."""

import json
from collections.abc import Sequence
from hashlib import sha256

from service.errors import ConcurrentIdempotentRequests
from service.mail.address import email_key
from service.mail.lifecycle import State
from service.store.limiter import idle_after, take
from service.store.port import (
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
from service.store.sqlite.writer import Transaction

SPAN = 1000  # rid = message * SPAN + n
SHARED_FROM = 64 * 1024  # octets: a piece of this size is kept once, whoever uses it


class Refused(Exception):
    """Roll this operation back and answer `result`."""

    def __init__(self, result: AcceptResult) -> None:
        self.result = result


def accept(transaction: Transaction, asked: Accept) -> AcceptResult:
    """Store a submission. Raises Refused when nothing may be stored."""
    request = None
    if asked.key is not None:
        request = _keep_answer(transaction, asked.account, asked.key, asked.answer, asked.key_expires_at)
    for one in asked.takes:
        _take(transaction, one, asked.now)
    for message in asked.messages:
        _keep_item(transaction, message, asked)
        _insert(transaction, message, request)
    transaction.queued = True
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


def _keep_item(transaction: Transaction, message: NewMessage, asked: Accept) -> None:
    if (item := message.item) is None:
        return
    try:
        key = IdempotencyKey(item.key, item.fingerprint)
        _keep_answer(transaction, asked.account, key, item.answer, asked.key_expires_at)
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


def _insert(transaction: Transaction, message: NewMessage, request: int | None) -> None:
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
        ),
    )
    seq = transaction.inserted()
    _insert_recipients(transaction, message, seq)
    insert_content(transaction, seq, message.content)
    for name, value in message.tags:
        transaction.run("accept: tag", (message.account, name, value, seq))
    for name, value in message.metadata:
        transaction.run("accept: metadata", (message.account, name, value, seq))
    transaction.run("accept: event", (seq, None, message.created_at, "accepted", None, None))


def _insert_recipients(transaction: Transaction, message: NewMessage, seq: int) -> None:
    for n, recipient in enumerate(message.recipients):
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


def insert_content(transaction: Transaction, seq: int, pieces: Sequence[bytes]) -> None:
    """Keep the bytes: small pieces joined, large ones as shared blobs with their place in `layout`."""
    if all(len(piece) < SHARED_FROM for piece in pieces[1:]):
        transaction.run("accept: content", (seq, pieces[0] if len(pieces) == 1 else b"".join(pieces), None))
        return
    inline: list[bytes] = []
    layout: list[tuple[int, str]] = []
    offset = 0
    for piece in pieces:
        if len(piece) < SHARED_FROM:
            inline.append(piece)
            offset += len(piece)
            continue
        digest = sha256(piece).digest()
        transaction.run("accept: blob", (digest, piece))
        transaction.run("accept: content blob", (seq, digest))
        layout.append((offset, digest.hex()))
    transaction.run("accept: content", (seq, b"".join(inline), json.dumps(layout)))
