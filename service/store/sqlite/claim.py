"""Claim: lease due deliveries, one lane after the other, opening one attempt for each.

A lane is a route and a priority, in order of due time; one index holds the lanes of all that waits, so what waits on
other routes costs nothing. The attempt's id is the fence token. A claim holds up the loop while it runs, so three
bounds keep it short, whatever it finds: deliveries (the wants' limits), octets, and recipients that end here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.mail.lifecycle import Event, State, apply
from service.mail.retry import History
from service.store.port import Delivery, DueRecipient, Want
from service.store.sqlite.accept import SPAN
from service.store.sqlite.contents import content_of
from service.store.sqlite.settle import close, end_waiting
from service.store.sqlite.writer import Transaction

PRIORITIES = (0, 1, 2)
_CONTENT_WITH_DELIVERY = 1024 * 1024  # octets
_CONTENT_WITH_CLAIM = 4 * 1024 * 1024  # octets of all deliveries together
_LOOKAHEAD = 4  # rows read for each delivery wanted; most messages have one recipient
_ENDED_WITH_CLAIM = 200  # messages that end instead of being handed out; the janitor ends the rest


def claim(
    transaction: Transaction, asked: Sequence[Want], holder: str, now: Callable[[], int], lease: float
) -> list[Delivery]:
    """See Store.claim."""
    claiming = _Claiming(transaction, holder, now(), lease, {want.relay: want.slots for want in asked})
    left = [want.limit for want in asked]
    claimed: list[Delivery] = []
    for priority in PRIORITIES:
        for index, want in enumerate(asked):
            if left[index] > 0:
                found = claiming.lane(want, priority, left[index])
                left[index] -= len(found)
                claimed += found
    return claimed


@dataclass(slots=True)
class _Claiming:
    """One claim under way, and what is left of its bounds."""

    transaction: Transaction
    holder: str
    now: int
    lease: float  # seconds
    slots: dict[str, int]  # free slots by relay; what is claimed beyond them is ahead
    octets: int = _CONTENT_WITH_CLAIM
    ends: int = _ENDED_WITH_CLAIM

    def lane(self, want: Want, priority: int, limit: int) -> list[Delivery]:
        """Up to `limit` deliveries of one lane."""
        claimed: list[Delivery] = []
        while len(claimed) < limit and self.ends > 0:
            rows = (limit - len(claimed)) * _LOOKAHEAD
            waiting = self.transaction.run("claim: waiting", (want.route, priority, self.now, rows)).fetchall()
            for seq in dict.fromkeys(rid // SPAN for (rid,) in waiting):
                if len(claimed) == limit or self.ends == 0:
                    break
                if (delivery := self._message(seq, want, priority)) is not None:
                    claimed.append(delivery)
            if len(waiting) < rows:
                break
        return claimed

    def _message(self, seq: int, want: Want, priority: int) -> Delivery | None:
        """Lease one message's due recipients; None when all of them ended instead (expired, suppressed)."""
        message = self.transaction.one("claim: message", (seq,))
        *message, category = message
        id, account, message_id, delivery, created_at, dated_at, expires_at, from_email, envelope_from, *rest = message
        smtputf8, size = rest
        due = self._sendable(seq, {"account": account, "category": category}, want.route)
        if not due:
            self.ends -= 1
            close(self.transaction, seq, self.now)
            return None
        ahead = self.slots[want.relay] <= 0
        self.slots[want.relay] -= 1
        return Delivery(
            attempt=self._open_attempt(seq, want, due, ahead),
            ahead=ahead,
            relay=want.relay,
            id=id,
            account=account,
            message_id=message_id,
            route=want.route,
            priority=priority,
            delivery=delivery,
            created_at=created_at,
            dated_at=dated_at,
            expires_at=expires_at,
            from_email=from_email,
            envelope_from=envelope_from,
            smtputf8=bool(smtputf8),
            size=size,
            sealed_as=self._sealed_as(seq, due),
            recipients=tuple(recipient for recipient, _ in due),
            content=self._content(seq, size),
        )

    def _sendable(self, seq: int, whose: dict[str, str], route: str) -> list[tuple[DueRecipient, State]]:
        """Due recipients; those that must not be sent any more end here."""
        transaction, now = self.transaction, self.now
        due: list[tuple[DueRecipient, State]] = []
        rows = transaction.run("claim: recipients", {"first": seq * SPAN, "now": now, "route": route}).fetchall()
        for rid, email, key, attempts, in_doubt, expires_at, state, *history in rows:
            if expires_at <= now:
                end_waiting(transaction, rid, State(state), Event.EXPIRE, "ttl is over", now)
            elif (row := transaction.one("suppressed: by address", {**whose, "key": key})) is not None:
                end_waiting(transaction, rid, State(state), Event.SUPPRESS, row[0], now)
            else:
                due.append((DueRecipient(rid % SPAN, email, attempts, in_doubt, History(*history)), State(state)))
        return due

    def _open_attempt(self, seq: int, want: Want, due: Sequence[tuple[DueRecipient, State]], ahead: bool) -> int:
        transaction, now, relay = self.transaction, self.now, want.relay
        until = now + int(self.lease * 1000)
        transaction.run("claim: attempt", (seq, relay, want.sealed_as or None, self.holder, now, until, int(ahead)))
        attempt = transaction.inserted()
        for recipient, state in due:
            leased = apply(state, Event.CLAIM)
            transaction.run("claim: lease", (leased.value, attempt, relay, now, seq * SPAN + recipient.n))
            transaction.move(state, leased)
        return attempt

    def _sealed_as(self, seq: int, due: Sequence[tuple[DueRecipient, State]]) -> str | None:
        if not any(recipient.in_doubt for recipient, _ in due):
            return None
        row = self.transaction.one("claim: sealed as", (seq,))
        return row[0] if row else None

    def _content(self, seq: int, size: int) -> tuple[bytes, ...] | None:
        if size > _CONTENT_WITH_DELIVERY or size > self.octets:
            return None
        self.octets -= size
        return content_of(self.transaction, seq)
