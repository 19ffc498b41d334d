"""Claim: lease due deliveries, one lane after the other, opening one attempt for each.

A lane is a route and a priority, in order of due time; one index holds the lanes of all that waits, so what waits on
other routes costs nothing. The attempt's id is the fence token. A claim holds up the loop while it runs, so three
bounds keep it short, whatever it finds: deliveries (the wants' limits), octets, and messages of which nothing is
handed out.

Quotas (store/quotas.py) decide with each message. A relay that has used one up ends its lanes, for this priority and
those below; a recipient that a quota of its own holds is put off, so that it stands in nobody's way.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service import failpoints
from service.mail.lifecycle import Event, State, apply
from service.mail.retry import History
from service.store.choosing import Asked, Due, PutOff, choose, most_read
from service.store.quotas import Quotas
from service.store.sqlite.contents import content_of
from service.store.sqlite.quotas import quotas_of, write_quotas
from service.store.sqlite.settle import close, end_waiting
from service.store.sqlite.transaction import Transaction
from service.store.values import Claimed, Delivery, DueRecipient, Want
from service.store.views import SPAN, dsn_of

PRIORITIES = (0, 1, 2)
_CONTENT_WITH_DELIVERY = 1024 * 1024  # octets
_CONTENT_WITH_CLAIM = 4 * 1024 * 1024  # octets of all deliveries together
_LOOKAHEAD = 4  # rows read for each delivery wanted; most messages have one recipient
_ENDED_WITH_CLAIM = 200  # messages that end or are put off instead of being handed out


def claim(
    transaction: Transaction, wants: Sequence[Want], holder: str, now: Callable[[], int], lease: float
) -> Claimed:
    """See Store.claim."""
    asked = [Asked(want, want.limit) for want in wants]
    claiming = _Claiming(transaction, asked, holder, now(), lease, {want.relay: want.slots for want in wants})
    claimed: list[Delivery] = []
    for priority in PRIORITIES:
        for each in asked:
            if each.left > 0 and priority <= each.want.least:
                claimed += claiming.lane(each, priority)
    if claiming.quotas is not None:
        write_quotas(transaction, claiming.quotas)
        failpoints.passed("claim.quota_taken")
    held = tuple(claiming.quotas.holds.values()) if claiming.quotas is not None else ()
    return Claimed(claimed, held, claiming.cut or claiming.ends == 0)


@dataclass(slots=True)
class _Claiming:
    """One claim under way, and what is left of its bounds."""

    transaction: Transaction
    asked: Sequence[Asked]
    holder: str
    now: int
    lease: float  # seconds
    slots: dict[str, int]  # free slots by relay; what is claimed beyond them is ahead
    octets: int = _CONTENT_WITH_CLAIM
    ends: int = _ENDED_WITH_CLAIM
    quotas: Quotas | None = None  # of relays that have any
    cut: bool = False  # some due recipients of a message were left for another delivery

    def lane(self, asked: Asked, priority: int) -> list[Delivery]:
        """Deliveries of one lane, up to what is left of the limit."""
        claimed: list[Delivery] = []
        want = asked.want
        while asked.left > 0 and self.ends > 0 and not self._held(want.relay, priority):
            rows = asked.left * _LOOKAHEAD
            waiting = self.transaction.run("claim: waiting", (want.route, priority, self.now, rows)).fetchall()
            firsts = {rid // SPAN: rid for (rid,) in reversed(waiting)}  # by message: the first that waits
            for seq in dict.fromkeys(rid // SPAN for (rid,) in waiting):
                if asked.left == 0 or self.ends == 0 or self._held(want.relay, priority):
                    break
                if (delivery := self._message(seq, firsts[seq], asked, priority)) is not None:
                    claimed.append(delivery)
            if len(waiting) < rows:
                break
        return claimed

    def _held(self, relay: str, priority: int) -> bool:
        return self.quotas is not None and self.quotas.held(relay, priority) is not None

    def _message(self, seq: int, first: int, asked: Asked, priority: int) -> Delivery | None:
        """Lease one message's due recipients; None when all of them ended instead (expired, suppressed) or must wait."""
        message = self.transaction.one("claim: message", (seq,))
        *message, category = message
        id, account, message_id, delivery, created_at, dated_at, expires_at, from_email, envelope_from, *rest = message
        smtputf8, size, dsn = rest
        due = self._sendable(seq, first, {"account": account, "category": category}, asked.want)
        if not due:
            self.ends -= 1
            close(self.transaction, seq, self.now)
            return None
        taken = None
        if asked.want.quotas:
            quotas = self.quotas = self.quotas or quotas_of(self.transaction, self.now)
            if (choice := choose(quotas, self.asked, asked, priority, due)) is None:
                return None
            self._put_off(seq, choice.off)
            if choice.asked is None:
                self.ends -= 1
                return None
            self.cut |= choice.cut
            asked, due, taken = choice.asked, choice.due, choice.taken
        else:
            due = due[: asked.want.max_recipients]
        asked.left -= 1
        want = asked.want
        ahead = self.slots[want.relay] <= 0
        self.slots[want.relay] -= 1
        return Delivery(
            attempt=self._open_attempt(seq, want, due, ahead, taken),
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
            dsn=dsn_of(dsn, id),
            size=size,
            sealed_as=self._sealed_as(seq, due),
            recipients=tuple(each.recipient for each in due),
            content=self._content(seq, size),
        )

    def _put_off(self, seq: int, off: Sequence[PutOff]) -> None:
        for each in off:
            self.transaction.run("claim: put off", (each.until, each.by, seq * SPAN + each.due.recipient.n))

    def _sendable(self, seq: int, first: int, whose: dict[str, str], want: Want) -> list[Due]:
        """Due recipients; those that must not be sent any more end here.

        Where a relay takes few at once, what it has taken before is not read again: those from the `first` that waits on,
        and no more than are needed. Else a message to many would be read, or written, with the square of their number.
        """
        transaction, now = self.transaction, self.now
        due: list[Due] = []
        most = most_read(want)
        given: dict[str, int | str] = {
            "first": seq * SPAN if most is None else first,
            "past": (seq + 1) * SPAN,
            "now": now,
        }
        given |= {"route": want.route, "most": -1 if most is None else most}
        rows = transaction.run("claim: recipients", given).fetchall()
        self.cut |= len(rows) == most
        for rid, email, key, attempts, in_doubt, expires_at, state, *history in rows:
            if expires_at <= now:
                end_waiting(transaction, rid, State(state), Event.EXPIRE, "ttl is over", now)
            elif (row := transaction.one("suppressed: by address", {**whose, "key": key})) is not None:
                end_waiting(transaction, rid, State(state), Event.SUPPRESS, row[0], now)
            else:
                recipient = DueRecipient(rid % SPAN, email, attempts, in_doubt, History(*history))
                due.append(Due(recipient, State(state), key, expires_at))
        return due

    def _open_attempt(self, seq: int, want: Want, due: Sequence[Due], ahead: bool, taken: str | None) -> int:
        transaction, now, relay = self.transaction, self.now, want.relay
        until = now + int(self.lease * 1000)
        sealed_as = want.sealed_as or None
        transaction.run("claim: attempt", (seq, relay, sealed_as, self.holder, now, until, int(ahead), taken))
        attempt = transaction.inserted()
        for each in due:
            leased = apply(each.state, Event.CLAIM)
            transaction.run("claim: lease", (leased.value, attempt, relay, now, seq * SPAN + each.recipient.n))
            transaction.move(each.state, leased)
        return attempt

    def _sealed_as(self, seq: int, due: Sequence[Due]) -> str | None:
        if not any(each.recipient.in_doubt for each in due):
            return None
        row = self.transaction.one("claim: sealed as", (seq,))
        return row[0] if row else None

    def _content(self, seq: int, size: int) -> tuple[bytes, ...] | None:
        if size > _CONTENT_WITH_DELIVERY or size > self.octets:
            return None
        self.octets -= size
        return content_of(self.transaction, seq)
