"""Claim, settle, rescue, expire: every write that moves a recipient, each with its event in the same transaction.

The attempt's id is the fence token. A write out of `sending` names state and fence in its WHERE; what it finds
there no more was lost to a rescuer, and zero rows is the answer. Target states come from mail/lifecycle alone.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

from service.mail.lifecycle import OPEN, Event, State, apply, target
from service.store.port import (
    Delivery,
    DueRecipient,
    DueRoute,
    RecipientSettlement,
    RescuePolicy,
    Settlement,
    Want,
)
from service.store.sqlite.accept import SPAN
from service.store.sqlite.writer import Transaction

PRIORITIES = (0, 1, 2)
_CONTENT_WITH_CLAIM = 1024 * 1024  # octets
_LOOKAHEAD = 4  # rows read for each delivery wanted; most messages have one recipient

# --- claim -------------------------------------------------------------------------------------------------------


def claim(
    transaction: Transaction,
    wants: Callable[[], Sequence[Want]],
    holder: str,
    now: Callable[[], int],
    lease: float,
) -> list[Delivery]:
    """See Store.claim."""
    asked, at = wants(), now()
    claimed: list[Delivery] = []
    left = [want.limit for want in asked]
    for priority in PRIORITIES:
        for index, want in enumerate(asked):
            if left[index] > 0:
                found = _claim_lane(transaction, want, left[index], priority, holder, at, lease)
                left[index] -= len(found)
                claimed += found
    return claimed


def _claim_lane(
    transaction: Transaction, want: Want, limit: int, priority: int, holder: str, now: int, lease: float
) -> list[Delivery]:
    claimed: list[Delivery] = []
    while len(claimed) < limit:
        rows = (limit - len(claimed)) * _LOOKAHEAD
        waiting = transaction.run("claim: waiting", (want.route, priority, now, rows)).fetchall()
        for seq in dict.fromkeys(rid // SPAN for (rid,) in waiting):
            if len(claimed) == limit:
                break
            delivery = _claim_message(transaction, seq, want, priority, holder, now, lease)
            if delivery is not None:
                claimed.append(delivery)
        if len(waiting) < rows:
            break
    return claimed


def _claim_message(
    transaction: Transaction, seq: int, want: Want, priority: int, holder: str, now: int, lease: float
) -> Delivery | None:
    """Lease one message's due recipients; None when all of them ended instead (expired, suppressed)."""
    message = transaction.one("claim: message", (seq,))
    due = _sendable(transaction, seq, message[1], want.route, now)
    if not due:
        close(transaction, seq, now)
        return None
    until = now + int(lease * 1000)
    transaction.run("claim: attempt", (seq, want.relay, holder, now, until))
    attempt = transaction.inserted()
    for rid, _, _, _, state in due:
        leased = apply(state, Event.CLAIM)
        transaction.run("claim: lease", (leased.value, attempt, want.relay, now, rid))
        transaction.move(state, leased)
    id, account, message_id, delivery, created_at, expires_at, from_email, envelope_from, smtputf8, size = message
    sealed_as = None
    if any(in_doubt for _, _, _, in_doubt, _ in due):
        sealed = transaction.one("claim: sealed as", (seq,))
        sealed_as = sealed[0] if sealed else None
    return Delivery(
        attempt=attempt,
        relay=want.relay,
        id=id,
        account=account,
        message_id=message_id,
        route=want.route,
        priority=priority,
        delivery=delivery,
        created_at=created_at,
        expires_at=expires_at,
        from_email=from_email,
        envelope_from=envelope_from,
        smtputf8=bool(smtputf8),
        size=size,
        sealed_as=sealed_as,
        recipients=tuple(DueRecipient(rid % SPAN, email, tried, doubt) for rid, email, tried, doubt, _ in due),
        content=content_of(transaction, seq) if size <= _CONTENT_WITH_CLAIM else None,
    )


def _sendable(
    transaction: Transaction, seq: int, account: str, route: str, now: int
) -> list[tuple[int, str, int, int, State]]:
    """(rid, email, attempts, in doubt, state) of due recipients; those that must not be sent any more end here."""
    due: list[tuple[int, str, int, int, State]] = []
    rows = transaction.run("claim: recipients", {"first": seq * SPAN, "now": now, "route": route}).fetchall()
    for rid, email, key, attempts, in_doubt, expires_at, state in rows:
        if expires_at <= now:
            end_waiting(transaction, rid, State(state), Event.EXPIRE, "ttl is over", now)
        elif (row := transaction.one("suppressed: by address", (account, key))) is not None:
            end_waiting(transaction, rid, State(state), Event.SUPPRESS, row[0], now)
        else:
            due.append((rid, email, attempts, in_doubt, State(state)))
    return due


def end_waiting(transaction: Transaction, rid: int, state: State, event: Event, why: str, now: int) -> None:
    """A waiting recipient ends without an attempt."""
    after = apply(state, event)
    transaction.run("claim: end", (after.value, now, why, rid))
    transaction.move(state, after)
    log_event(transaction, rid // SPAN, rid % SPAN, now, event.value, None, {"why": why})


def content_of(transaction: Transaction, seq: int) -> tuple[bytes, ...] | None:
    """The bytes of a message, or None when they are gone."""
    row = transaction.one("delivery_content: by seq", (seq,))
    return None if row is None else assemble(row, lambda sha: transaction.one("delivery_content: blob", (sha,))[0])


def assemble(row: tuple[int, bytes, str | None], blob: Callable[[bytes], bytes]) -> tuple[bytes, ...]:
    """Pieces in order from a stored row (message, inline, layout) and its shared blobs."""
    _, inline, layout = row
    if layout is None:
        return (inline,)
    pieces: list[bytes] = []
    done = 0
    for offset, digest in json.loads(layout):
        if offset > done:
            pieces.append(inline[done:offset])
            done = offset
        pieces.append(blob(bytes.fromhex(digest)))
    if done < len(inline):
        pieces.append(inline[done:])
    return tuple(pieces)


# --- settle -----------------------------------------------------------------------------------------------------


def settle(transaction: Transaction, settlement: Settlement) -> int:
    """See Store.settle."""
    row = transaction.one(
        "settle: attempt",
        (
            settlement.now,
            settlement.result,
            settlement.session,
            json.dumps({phase: round(ms, 2) for phase, ms in settlement.timings.items()}),
            settlement.sealed_as,
            settlement.detail,
            settlement.attempt,
        ),
    )
    if row is None:
        return 0
    seq, relay = row
    rows = sum(_settle_recipient(transaction, settlement, seq, relay, each) for each in settlement.recipients)
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
    log_event(
        transaction,
        seq,
        each.n,
        settlement.now,
        each.event.value,
        settlement.attempt,
        _event_data(settlement, relay, each),
    )
    return 1


def _event_data(settlement: Settlement, relay: str, each: RecipientSettlement) -> dict[str, Any]:
    data: dict[str, Any] = {"relay": relay, "class": each.kind, "phase": each.phase, "charged": each.charged}
    if each.code is not None:
        data["code"] = each.code
    if each.enhanced:
        data["enhanced_code"] = each.enhanced
    if each.text:
        data["text"] = each.text
    if each.due_at is not None:
        data["next_attempt_at"] = each.due_at
    if settlement.session:
        data["session"] = settlement.session
    if settlement.timings:
        data["timings_ms"] = {phase: round(ms, 2) for phase, ms in settlement.timings.items()}
    if each.suppress:
        data["suppressed"] = each.suppress
    return data


def _suppress(
    transaction: Transaction, settlement: Settlement, each: RecipientSettlement, email: str, key: str
) -> None:
    detail = " ".join(part for part in (str(each.code or ""), each.enhanced, each.text) if part)
    transaction.run(
        "add_suppression: insert",
        (settlement.account, key, each.suppress, email, "delivery", settlement.now, settlement.id, detail),
    ).fetchall()


def close(transaction: Transaction, seq: int, now: int) -> None:
    """Mark the message closed if no recipient is open."""
    transaction.run("settle: close", {"seq": seq, "now": now})


def log_event(
    transaction: Transaction, seq: int, n: int | None, at: int, type: str, attempt: int | None, data: Any
) -> None:
    """One line of the delivery log."""
    text = json.dumps(data, ensure_ascii=False) if data else None
    transaction.run("accept: event", (seq, n, at, type, attempt, text))


# --- rescue and expire ------------------------------------------------------------------------------------------


def rescue(transaction: Transaction, now: int, policy: RescuePolicy, dead: Callable[[Sequence[str]], set[str]]) -> int:
    """See Store.rescue. `dead` tells which holders are known to have died."""
    holders = [holder for (holder,) in transaction.run("rescue: holders")]
    gone = dead(holders)
    rescued = 0
    for holder in holders:
        before = 2**62 if holder in gone else now
        for orphan in transaction.run("rescue: orphans", (holder, before)).fetchall():
            _rescue_attempt(transaction, orphan, now, policy)
            rescued += 1
    return rescued


def _rescue_attempt(transaction: Transaction, orphan: tuple[Any, ...], now: int, policy: RescuePolicy) -> None:
    attempt, seq, content_started_at, id, account, delivery, kills, expires_at = orphan
    transaction.run("rescue: kill", (seq,))
    untouched = delivery == "at_most_once" and content_started_at is None
    poison = kills + 1 >= policy.max_kills
    due_at = min(now + int(policy.in_doubt_delay * 1000), expires_at)
    results: list[RecipientSettlement] = []
    rows = transaction.run("rescue: recipients", {"first": seq * SPAN, "attempt": attempt}).fetchall()
    for rid, in_doubt, _ in rows:
        n, kind, text = rid % SPAN, "in-doubt", "the sender died or lost its lease before the result was recorded"
        if poison:
            results.append(RecipientSettlement(n, Event.FAULT, "poison", "rescue", True, text=text))
        elif untouched:
            results.append(RecipientSettlement(n, Event.NOT_STARTED, "not-started", "rescue", False, now, text=text))
        elif delivery == "at_most_once" or in_doubt >= policy.max_in_doubt:
            results.append(RecipientSettlement(n, Event.PARK, kind, "rescue", True, None, True, text=text))
        else:
            results.append(RecipientSettlement(n, Event.IN_DOUBT, kind, "rescue", True, due_at, True, text=text))
    result = "not_started" if untouched and not poison else "in_doubt"
    settle(transaction, Settlement(attempt, id, account, now, result, results, detail="rescued"))


def expire(transaction: Transaction, now: int, limit: int) -> int:
    """See Store.expire."""
    rows = transaction.run("expire: due", (now, limit)).fetchall()
    for rid, state in rows:
        end_waiting(transaction, rid, State(state), Event.EXPIRE, "ttl is over", now)
        close(transaction, rid // SPAN, now)
    return len(rows)


def due_routes(next_lane: Callable[[tuple[str, int]], tuple[str, int, int] | None]) -> list[DueRoute]:
    """See Store.due_routes: one seek for each lane."""
    lanes: list[DueRoute] = []
    place = ("", -1)
    while (row := next_lane(place)) is not None:
        lanes.append(DueRoute(*row))
        place = row[:2]
    return lanes
