"""Settle, for a whole group at once: what attempts came to is written once, by whoever holds the fence, with its lines in
the delivery log.

A write out of `sending` names state and fence in its WHERE; what it finds there no more was lost to a rescuer, and
zero rows is the answer. Target states come from mail/lifecycle alone. Messages are held first, so that of two attempts
at one message the last to end closes it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from service import failpoints
from service.mail.lifecycle import OPEN, Event, State, apply, target
from service.store.choosing import moved_with
from service.store.log import event_data, event_text, left_out_data, suppression_detail, timings_text
from service.store.postgres.limits import buckets_of, close_taken, hold, idle_after, states_of, write
from service.store.postgres.session import Judgement, Rows, judge
from service.store.postgres.statements import Statement, statement
from service.store.postgres.transaction import Transaction
from service.store.values import RecipientSettlement, Settlement
from service.store.views import SPAN


@dataclass(slots=True)
class Closing:
    """Attempts that a group closes, step by step; each step's statements go out with others of the same round trip.

    ahead: of the clock by which the results are told, that by which quotas are kept; ms.
    """

    transaction: Transaction
    settlements: Sequence[Settlement]
    ahead: int
    closed: dict[int, tuple[int, str, str | None]] = field(default_factory=dict)  # message, relay, taken; by attempt
    counts: Counter[int] = field(default_factory=Counter)  # recipients changed, by attempt
    first: dict[int, Settlement] = field(default_factory=dict)  # of two for one attempt the first one counts
    _mine: list[tuple[Settlement, RecipientSettlement]] = field(default_factory=list)
    _found: dict[int, tuple[str, str]] = field(default_factory=dict)  # address and its key, by recipient

    def __post_init__(self) -> None:
        for each in self.settlements:
            self.first.setdefault(each.attempt, each)

    def attempts(self) -> list[Statement]:
        """Hold the messages, close the attempts."""
        if not self.settlements:
            return []
        rows = [_attempt(self.first[attempt]) for attempt in sorted(self.first)]
        return [
            statement("settle: messages", {"ids": sorted(self.first)}),
            statement("settle: attempt", {"rows": rows}),
        ]

    def learn_attempts(self, rows: Rows) -> None:
        """What `attempts` answered."""
        self.closed = {attempt: (message, relay, taken) for attempt, message, relay, taken in rows}
        self._mine = [
            (settlement, each)
            for attempt, settlement in sorted(self.first.items())
            if attempt in self.closed
            for each in settlement.recipients
        ]

    def recipients(self) -> list[Statement]:
        """Move the recipients that are still held."""
        rows = [_recipient(settlement, each, self.closed[settlement.attempt][0]) for settlement, each in self._mine]
        if rows:
            failpoints.passed("settle.within")
        return [statement("settle: recipient", {"rows": rows})] if rows else []

    def learn_recipients(self, rows: Rows) -> None:
        """What `recipients` answered."""
        for rid, attempt, email, key in rows:
            self._found[rid] = email, key
            self.counts[attempt] += 1

    def buckets(self) -> set[str]:
        """The quotas that the closed attempts took something of."""
        return buckets_of(taken for _, _, taken in self.closed.values())

    def give_back(self, states: dict[str, bytes]) -> dict[str, tuple[bytes, int]]:
        """Count or give back what was taken, in `states`; what is to be written of them."""
        over = [
            (taken, settlement.now + self.ahead, not settlement.unspent)
            for attempt, settlement in sorted(self.first.items())
            if attempt in self.closed and (taken := self.closed[attempt][2]) is not None
        ]
        return {bucket: (states[bucket], idle_after(states[bucket])) for bucket in close_taken(states, over)}

    def rest(self) -> list[Statement]:
        """The log, suppressions, and messages that are over."""
        events: list[dict[str, Any]] = []
        suppressions: list[dict[str, Any]] = []
        for settlement, each in self._mine:
            message, relay, _ = self.closed[settlement.attempt]
            if (found := self._found.get(message * SPAN + each.n)) is None:
                continue
            after = apply(State.SENDING, each.event)
            self.transaction.move(State.SENDING, after)
            self.transaction.queued |= after in OPEN
            if each.suppress is not None:
                suppressions.append(_suppression(settlement, each, *found))
            if not each.left_out:  # a line for each at each attempt would make the log grow with their square
                data = event_text(event_data(settlement, relay, each))
                events.append(event_row(message, each.n, settlement.now, each.event.value, settlement.attempt, data))
        events += self._left_out()
        suppressions.sort(key=lambda row: (row["account"], row["address_key"], row["reason"]))
        return [*_insert("add_suppression: insert", suppressions), *log_events(events), *self._routes(), *self._close()]

    def _routes(self) -> list[Statement]:
        found: list[Statement] = []
        for attempt, settlement in sorted(self.first.items()):
            if attempt in self.closed and settlement.route is not None:
                message = self.closed[attempt][0]
                route = {"route": settlement.route, "seq": message}
                held = {"first": message * SPAN, "attempt": attempt, "due_by": moved_with(settlement)}
                found.append(statement("settle: route", route | held))
                found.append(statement("settle: message route", route))
        return found

    def _left_out(self) -> list[dict[str, Any]]:
        """One line for each attempt that left recipients for the next."""
        told = []
        for attempt in sorted(self.counts):
            message, relay, _ = self.closed[attempt]
            settlement = self.first[attempt]
            if (left := left_out_data(settlement, relay)) is not None:
                text = event_text(left)
                told.append(event_row(message, None, settlement.now, Event.DEFER.value, attempt, text))
        return told

    def _close(self) -> list[Statement]:
        over: dict[int, list[int]] = {}
        for settlement in self.first.values():
            if settlement.attempt in self.closed and any(
                target(each.event) not in OPEN for each in settlement.recipients
            ):
                over.setdefault(settlement.now, []).append(self.closed[settlement.attempt][0])
        return [each for now in sorted(over) for each in close_messages(over[now], now)]

    def results(self) -> list[int]:
        """The recipients changed by each settlement, in the order given."""
        answered: set[int] = set()
        found: list[int] = []
        for each in self.settlements:
            found.append(0 if each.attempt in answered else self.counts[each.attempt])
            answered.add(each.attempt)
        return found


def _attempt(settlement: Settlement) -> dict[str, Any]:
    return {
        "id": settlement.attempt,
        "closed_at": settlement.now,
        "result": settlement.result,
        "session": settlement.session,
        "timings": timings_text(settlement),
        "sealed_as": settlement.sealed_as,
        "signed_by": ", ".join(settlement.signed_by) or None,
        "detail": settlement.detail,
    }


def _recipient(settlement: Settlement, each: RecipientSettlement, message: int) -> dict[str, Any]:
    return {
        "rid": message * SPAN + each.n,
        "attempt": settlement.attempt,
        "state": apply(State.SENDING, each.event).value,
        "due_at": each.due_at,
        "charged": int(each.charged),
        "doubts": int(each.in_doubt),
        "provider_message_id": each.provider_message_id,
        "code": each.code,
        "enhanced": each.enhanced,
        "text": each.text,
        "kind": each.kind,
        "at": settlement.now,
        "reconnected_at": settlement.now if each.reconnected else None,
    }


def _suppression(settlement: Settlement, each: RecipientSettlement, email: str, key: str) -> dict[str, Any]:
    return {
        "account": settlement.account,
        "address_key": key,
        "reason": each.suppress,
        "email": email,
        "origin": "delivery",
        "created_at": settlement.now,
        "message": settlement.id,
        "detail": suppression_detail(each),
        "category": "",
    }


def event_row(message: int, n: int | None, at: int, type: str, attempt: int | None, data: str | None) -> dict[str, Any]:
    """One line of the delivery log."""
    return {"message": message, "n": n, "at": at, "type": type, "attempt": attempt, "data": data}


def _insert(name: str, rows: list[dict[str, Any]]) -> list[Statement]:
    return [statement(name, {"rows": rows})] if rows else []


def log_events(rows: list[dict[str, Any]]) -> list[Statement]:
    """Lines of the delivery log."""
    return _insert("accept: events", rows)


def close_messages(seqs: Iterable[int], now: int) -> list[Statement]:
    """Mark messages closed if no recipient is open."""
    ordered = sorted(set(seqs))
    return [statement("settle: close", {"seqs": ordered, "now": now})] if ordered else []


def end_waiting(transaction: Transaction, ends: Sequence[tuple[int, State, Event, str]], now: int) -> list[Statement]:
    """Waiting recipients end without an attempt. `ends`: rid, state, event, why. Their messages are held."""
    rows: list[dict[str, Any]] = []
    events: list[dict[str, Any]] = []
    for rid, state, event, why in ends:
        after = apply(state, event)
        transaction.move(state, after)
        rows.append({"rid": rid, "state": after.value, "why": why})
        events.append(event_row(rid // SPAN, rid % SPAN, now, event.value, None, event_text({"why": why})))
    if not rows:
        return []
    seqs = [rid // SPAN for rid, *_ in ends]
    return [statement("claim: end", {"rows": rows, "now": now}), *log_events(events), *close_messages(seqs, now)]


async def settle_all(transaction: Transaction, settlements: Sequence[Settlement], ahead: int) -> Sequence[int]:
    """Close attempts in a transaction that does nothing else; recipients changed by each. Commits. ahead: see Closing."""
    closing = Closing(transaction, settlements, ahead)
    _, rows = await transaction.run(*closing.attempts())
    closing.learn_attempts(rows)
    held, moved = hold(closing.buckets()), closing.recipients()
    answers = await transaction.run(*held, *moved) if held or moved else []
    if moved:
        closing.learn_recipients(answers[-1])
    states = states_of(answers[1]) if held else {}
    written = write(closing.give_back(states))
    await transaction.commit(*closing.rest(), *written)
    return closing.results()


async def settle_apart(
    begin: Callable[[], Transaction], settlements: Sequence[Settlement], ahead: int
) -> Sequence[int | Exception]:
    """Close attempts, all in one transaction; after a fault of one of them each in a transaction of its own.

    Recipients changed by each, or its fault. Raises psycopg.Error for what is the connection's or the server's.
    """
    if not settlements:
        return []
    transaction = begin()
    fault: Exception
    try:
        return await settle_all(transaction, settlements, ahead)
    except psycopg.Error as error:
        if judge(error) is not Judgement.OWN:
            raise
        fault = error
    except Exception as error:
        fault = error
    await transaction.rollback()
    if len(settlements) == 1:
        return [fault]
    return [result for each in settlements for result in await settle_apart(begin, [each], ahead)]
