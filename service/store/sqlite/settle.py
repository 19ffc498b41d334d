"""Settle: what an attempt came to is written once, by whoever holds the fence, with its line in the delivery log.

A write out of `sending` names state and fence in its WHERE; what it finds there no more was lost to a rescuer, and
zero rows is the answer. Target states come from mail/lifecycle alone.
"""

from typing import Any

from service import failpoints
from service.mail.lifecycle import OPEN, Event, State, apply, target
from service.store.choosing import moved_with
from service.store.log import event_data, event_text, left_out_data, suppression_detail, timings_text
from service.store.sqlite.quotas import close_taken
from service.store.sqlite.transaction import Transaction
from service.store.values import RecipientSettlement, Settlement
from service.store.views import SPAN


def settle(transaction: Transaction, settlement: Settlement) -> int:
    """See Store.settle."""
    row = transaction.one(
        "settle: attempt",
        (
            settlement.now,
            settlement.result,
            settlement.session,
            timings_text(settlement),
            settlement.sealed_as,
            ", ".join(settlement.signed_by) or None,
            settlement.detail,
            settlement.attempt,
        ),
    )
    if row is None:
        return 0
    seq, relay, taken = row
    if taken is not None:
        close_taken(transaction, taken, settlement.now, spent=not settlement.unspent)
    failpoints.passed("settle.within")
    rows = sum(_settle_recipient(transaction, settlement, seq, relay, each) for each in settlement.recipients)
    if rows and (left := left_out_data(settlement, relay)) is not None:
        log_event(transaction, seq, None, settlement.now, Event.DEFER.value, settlement.attempt, left)
    if settlement.route is not None:
        route = {"route": settlement.route, "seq": seq}
        held = {"first": seq * SPAN, "attempt": settlement.attempt, "due_by": moved_with(settlement)}
        transaction.run("settle: route", route | held).fetchall()
        transaction.run("settle: message route", route).fetchall()
    if any(target(each.event) not in OPEN for each in settlement.recipients):
        close(transaction, seq, settlement.now)
    return rows


def _settle_recipient(
    transaction: Transaction, settlement: Settlement, seq: int, relay: str, each: RecipientSettlement
) -> int:
    after = apply(State.SENDING, each.event)
    row = transaction.one(
        "settle: recipient",
        (
            after.value,
            each.due_at,
            int(each.charged),
            int(each.in_doubt),
            each.provider_message_id,
            each.code,
            each.enhanced,
            each.text,
            each.kind,
            settlement.now,
            *(each.kind if each.charged else None,) * 2,
            settlement.now if each.reconnected else None,
            seq * SPAN + each.n,
            settlement.attempt,
        ),
    )
    if row is None:
        return 0
    email, key = row
    transaction.move(State.SENDING, after)
    if after in OPEN:
        transaction.queued = True
    if each.suppress is not None:
        _suppress(transaction, settlement, each, email, key)
    if not each.left_out:  # a line for each at each attempt would make the log grow with the square of the recipients
        data = event_data(settlement, relay, each)
        log_event(transaction, seq, each.n, settlement.now, each.event.value, settlement.attempt, data)
    return 1


def _suppress(
    transaction: Transaction, settlement: Settlement, each: RecipientSettlement, email: str, key: str
) -> None:
    detail = suppression_detail(each)
    transaction.run(
        "add_suppression: insert",
        (settlement.account, key, each.suppress, email, "delivery", settlement.now, settlement.id, detail, ""),
    ).fetchall()


def close(transaction: Transaction, seq: int, now: int) -> None:
    """Mark the message closed if no recipient is open."""
    transaction.run("settle: close", {"seq": seq, "now": now})


def log_event(
    transaction: Transaction, seq: int, n: int | None, at: int, type: str, attempt: int | None, data: Any
) -> None:
    """One line of the delivery log."""
    transaction.run("accept: event", (seq, n, at, type, attempt, event_text(data)))


def end_waiting(transaction: Transaction, rid: int, state: State, event: Event, why: str, now: int) -> None:
    """A waiting recipient ends without an attempt."""
    after = apply(state, event)
    transaction.run("claim: end", (after.value, now, why, rid))
    transaction.move(state, after)
    log_event(transaction, rid // SPAN, rid % SPAN, now, event.value, None, {"why": why})
