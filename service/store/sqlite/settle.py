"""Settle: what attempts came to is written once, by whoever holds the fences, with its lines in the delivery log.

A write out of `sending` names state and fence in its WHERE; what it finds there no more was lost to a rescuer, and
zero rows is the answer. Target states come from mail/lifecycle alone. Results come in many at a time, and a statement costs
more than its row: so each statement is run for all of them in one call.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from service import failpoints
from service.mail.lifecycle import OPEN, Event, State, apply, target
from service.store.choosing import moved_with
from service.store.log import event_data, event_text, left_out_data, suppression_detail, timings_text
from service.store.sqlite.quotas import close_taken
from service.store.sqlite.transaction import Transaction
from service.store.values import RecipientSettlement, Settlement
from service.store.views import SPAN


@dataclass(slots=True)
class _Closed:
    """A settlement whose attempt it has closed."""

    settlement: Settlement
    seq: int  # of the message
    relay: str
    rows: int = 0  # recipients that it changed


def settle(transaction: Transaction, settlement: Settlement) -> int:
    """See Store.settle."""
    return settle_all(transaction, [settlement])[0]


def settle_all(transaction: Transaction, settlements: Sequence[Settlement]) -> list[int]:
    """Store.settle of each. Of two that name the same attempt the first one counts."""
    closed = _close_attempts(transaction, settlements)
    events = _move_recipients(transaction, closed.values())
    transaction.each("accept: event", events)
    for each in closed.values():
        if each.settlement.route is not None:
            _reroute(transaction, each)
    ended = [
        each for each in closed.values() if any(target(one.event) not in OPEN for one in each.settlement.recipients)
    ]
    transaction.each("settle: close", [{"seq": each.seq, "now": each.settlement.now} for each in ended])
    rows = {attempt: each.rows for attempt, each in closed.items()}
    return [rows.pop(each.attempt, 0) for each in settlements]


def _close_attempts(transaction: Transaction, settlements: Sequence[Settlement]) -> dict[int, _Closed]:
    """Those that were open, by attempt; what they took of quotas is closed with them."""
    first: dict[int, Settlement] = {}
    for each in settlements:
        first.setdefault(each.attempt, each)
    closed: dict[int, _Closed] = {}
    bindings = [
        (
            each.now,
            each.result,
            each.session,
            timings_text(each),
            each.sealed_as,
            ", ".join(each.signed_by) or None,
            each.detail,
            each.attempt,
        )
        for each in first.values()
    ]
    for attempt, seq, relay, taken in transaction.each("settle: attempt", bindings):
        settlement = first[attempt]
        if taken is not None:
            close_taken(transaction, taken, settlement.now, spent=not settlement.unspent)
        closed[attempt] = _Closed(settlement, seq, relay)
        failpoints.passed("settle.within")
    return closed


def _move_recipients(transaction: Transaction, closed: Collection[_Closed]) -> list[tuple[Any, ...]]:
    """Apply the events to the recipients that are still held; the lines for the log."""
    bindings = [_after(each.settlement, each.seq, one) for each in closed for one in each.settlement.recipients]
    held = {(rid, attempt): whose for rid, attempt, *whose in transaction.each("settle: recipient", bindings)}
    lines: list[tuple[Any, ...]] = []
    for each in closed:
        settlement, seq, relay = each.settlement, each.seq, each.relay
        for one in settlement.recipients:
            if (whose := held.get((seq * SPAN + one.n, settlement.attempt))) is None:
                continue
            each.rows += 1
            _moved(transaction, settlement, one, *whose)
            if not one.left_out:  # a line for each at each attempt would make the log grow with the recipients' square
                data = event_data(settlement, relay, one)
                lines.append(_line(seq, one.n, settlement.now, one.event.value, settlement.attempt, data))
        if each.rows and (left := left_out_data(settlement, relay)) is not None:
            lines.append(_line(seq, None, settlement.now, Event.DEFER.value, settlement.attempt, left))
    return lines


def _after(settlement: Settlement, seq: int, each: RecipientSettlement) -> tuple[Any, ...]:
    """What is written down about a recipient, and by which it is found."""
    counted = each.kind if each.charged else None
    return (
        apply(State.SENDING, each.event).value,
        each.due_at,
        int(each.charged),
        int(each.in_doubt),
        each.provider_message_id,
        each.code,
        each.enhanced,
        each.text,
        each.kind,
        settlement.now,
        counted,
        counted,
        settlement.now if each.reconnected else None,
        seq * SPAN + each.n,
        settlement.attempt,
    )


def _moved(transaction: Transaction, settlement: Settlement, each: RecipientSettlement, email: str, key: str) -> None:
    after = apply(State.SENDING, each.event)
    transaction.move(State.SENDING, after)
    if after in OPEN:
        transaction.queued = True
    if each.suppress is not None:
        _suppress(transaction, settlement, each, email, key)


def _reroute(transaction: Transaction, each: _Closed) -> None:
    """What the attempt held goes by another route from here on."""
    route = {"route": each.settlement.route, "seq": each.seq}
    held = {"first": each.seq * SPAN, "attempt": each.settlement.attempt, "due_by": moved_with(each.settlement)}
    transaction.run("settle: route", route | held).fetchall()
    transaction.run("settle: message route", route).fetchall()


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
    transaction.run("accept: event", _line(seq, n, at, type, attempt, data))


def _line(seq: int, n: int | None, at: int, type: str, attempt: int | None, data: Any) -> tuple[Any, ...]:
    return seq, n, at, type, attempt, event_text(data)


def end_waiting(transaction: Transaction, rid: int, state: State, event: Event, why: str, now: int) -> None:
    """A waiting recipient ends without an attempt."""
    after = apply(state, event)
    transaction.run("claim: end", (after.value, now, why, rid))
    transaction.move(state, after)
    log_event(transaction, rid // SPAN, rid % SPAN, now, event.value, None, {"why": why})
