"""Claim: lease due deliveries, one lane after the other, opening one attempt for each.

A lane is a route and a priority, in order of due time; one index holds the lanes of all that waits, so what waits on
other routes costs nothing. The attempt's id is the fence token. A claim holds up the loop while it runs, so three
bounds keep it short, whatever it finds: deliveries (the wants' limits), octets, and messages of which nothing is
handed out.

Quotas (store/quotas.py) decide with each message. A relay that has used one up ends its lanes, for this priority and
those below; a recipient that a quota of its own holds is put off, so that it stands in nobody's way.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from service import failpoints
from service.mail.lifecycle import Event, State, apply
from service.mail.retry import History
from service.store.choosing import DOUBTED_FOR, Asked, Due, PutOff, choose, most_read
from service.store.quotas import Quotas
from service.store.sqlite.contents import contents_of
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
    transaction: Transaction,
    wants: Sequence[Want],
    holder: str,
    now: Callable[[], int],
    lease: float,
    told: Callable[[], int],
) -> Claimed:
    """See Store.claim."""
    asked = [Asked(want, want.limit) for want in wants]
    slots = {want.relay: want.slots for want in wants}
    claiming = _Claiming(transaction, asked, holder, now(), lease, slots, told())
    claimed: list[Delivery] = []
    for priority in PRIORITIES:
        for each in asked:
            drained = (each.want.route, priority) in claiming.drained
            if each.left > 0 and priority <= each.want.least and not drained:
                claimed += claiming.lane(each, priority)
    if claiming.quotas is not None:
        write_quotas(transaction, claiming.quotas)
        failpoints.passed("claim.quota_taken")
    held = tuple(claiming.quotas.holds.values()) if claiming.quotas is not None else ()
    return Claimed(claimed, held, claiming.cut or claiming.ends == 0)


_Row = tuple[Any, ...]


@dataclass(slots=True)
class _Chosen:
    """A message that is handed out: by which want, to whom, and what that takes of quotas."""

    message: _Row  # of "claim: message"
    want: Want
    due: Sequence[Due]
    ahead: bool
    taken: str | None

    @property
    def size(self) -> int:
        """Octets."""
        return int(self.message[-2])


@dataclass(slots=True)
class _Claiming:
    """One claim under way, and what is left of its bounds."""

    transaction: Transaction
    asked: Sequence[Asked]
    holder: str
    now: int
    lease: float  # seconds
    slots: dict[str, int]  # free slots by relay; what is claimed beyond them is ahead
    told: int  # ms, see Store.claim
    octets: int = _CONTENT_WITH_CLAIM
    ends: int = _ENDED_WITH_CLAIM
    quotas: Quotas | None = None  # of relays that have any
    cut: bool = False  # some due recipients of a message were left for another delivery
    drained: set[tuple[str, int]] = field(default_factory=set)  # lanes, as route and priority, that have nothing left

    def lane(self, asked: Asked, priority: int) -> list[Delivery]:
        """Deliveries of one lane, up to what is left of the limit."""
        claimed: list[Delivery] = []
        want = asked.want
        while self._goes_on(asked, priority):
            rows = asked.left * _LOOKAHEAD
            waiting = self.transaction.run("claim: waiting", (want.route, priority, self.now, rows)).fetchall()
            firsts: dict[int, int] = {}  # by message: the first that waits
            for (rid,) in waiting:
                firsts.setdefault(rid // SPAN, rid)
            chosen: list[_Chosen] = []
            looked_at = 0
            for message, rows_of_recipients in self._messages(firsts, want, asked.left):
                looked_at += 1
                if (choice := self._choose(message, rows_of_recipients, asked, priority)) is not None:
                    chosen.append(choice)
                if not self._goes_on(asked, priority):
                    break
            claimed += self._lease(chosen, priority)
            if len(waiting) < rows:
                if looked_at == len(firsts) and not want.quotas:  # no other relay need ask
                    self.drained.add((want.route, priority))
                break
        return claimed

    def _goes_on(self, asked: Asked, priority: int) -> bool:
        held = self.quotas is not None and self.quotas.held(asked.want.relay, priority) is not None
        return asked.left > 0 and self.ends > 0 and not held

    def _messages(self, firsts: Mapping[int, int], want: Want, at_once: int) -> Iterator[tuple[_Row, list[_Row]]]:
        """Each message with its due recipients, read when it is asked for, `at_once` at a time.

        firsts: the first recipient that waits, by message. Where a relay takes few at once, what it has taken before is
        not read again: those from the first on, and no more than are needed. Else a message to many would be read, or
        written, with the square of their number.
        """
        seqs, most = list(firsts), most_read(want)
        for start in range(0, len(seqs), at_once):
            messages = self.transaction.each("claim: message", [(seq,) for seq in seqs[start : start + at_once]])
            asked = [
                {
                    "first": seq * SPAN if most is None else firsts[seq],
                    "past": (seq + 1) * SPAN,
                    "now": self.now,
                    "route": want.route,
                    "category": category,
                    "most": -1 if most is None else most,
                }
                for seq, category, *_ in messages
            ]
            recipients: dict[int, list[_Row]] = {}
            for row in self.transaction.each("claim: recipients", asked):
                recipients.setdefault(row[0] // SPAN, []).append(row)
            for message in messages:
                yield message, recipients.get(message[0], [])

    def _choose(self, message: _Row, rows: Sequence[_Row], asked: Asked, priority: int) -> _Chosen | None:
        """Who sends it to whom; None when all its due recipients ended instead (expired, suppressed) or must wait."""
        seq = message[0]
        self.cut |= len(rows) == most_read(asked.want)
        due = self._sendable(rows)
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
        return _Chosen(message, want, due, ahead, taken)

    def _put_off(self, seq: int, off: Sequence[PutOff]) -> None:
        for each in off:
            self.transaction.run("claim: put off", (each.until, each.by, seq * SPAN + each.due.recipient.n))

    def _sendable(self, rows: Sequence[_Row]) -> list[Due]:
        """Due recipients; those that must not be sent any more end here, or wait while that is in doubt."""
        now = self.now
        due: list[Due] = []
        for rid, email, key, attempts, in_doubt, expires_at, state, suppressed, *history in rows:
            if expires_at <= now:
                end_waiting(self.transaction, rid, State(state), Event.EXPIRE, "ttl is over", now)
            elif expires_at <= self.told:
                self.transaction.run("claim: put off", (now + DOUBTED_FOR, None, rid))
            elif suppressed is not None:
                end_waiting(self.transaction, rid, State(state), Event.SUPPRESS, suppressed, now)
            else:
                recipient = DueRecipient(rid % SPAN, email, attempts, in_doubt, History(*history))
                due.append(Due(recipient, State(state), key, expires_at))
        return due

    def _lease(self, chosen: Sequence[_Chosen], priority: int) -> list[Delivery]:
        """Open an attempt for each, and hand it out with its content."""
        attempts = self._open_attempts(chosen)
        contents = self._contents(chosen)
        return [
            self._delivery(each, attempt, priority, contents.get(each.message[0]))
            for each, attempt in zip(chosen, attempts, strict=True)
        ]

    def _open_attempts(self, chosen: Sequence[_Chosen]) -> list[int]:
        until = self.told + int(self.lease * 1000)
        opened = [
            (
                each.message[0],
                want.relay,
                want.sealed_as or None,
                self.holder,
                self.now,
                until,
                int(each.ahead),
                each.taken,
            )
            for each in chosen
            for want in [each.want]
        ]
        attempts = [attempt for (attempt,) in self.transaction.each("claim: attempt", opened)]
        leases = []
        for each, attempt in zip(chosen, attempts, strict=True):
            for due in each.due:
                leased = apply(due.state, Event.CLAIM)
                rid = each.message[0] * SPAN + due.recipient.n
                leases.append((leased.value, attempt, each.want.relay, self.now, rid))
                self.transaction.move(due.state, leased)
        self.transaction.each("claim: lease", leases)
        return attempts

    def _contents(self, chosen: Sequence[_Chosen]) -> dict[int, tuple[bytes, ...]]:
        """The bytes of those that are small enough to come with the claim, by message."""
        small = []
        for each in chosen:
            if each.size <= min(_CONTENT_WITH_DELIVERY, self.octets):
                self.octets -= each.size
                small.append(each.message[0])
        return contents_of(self.transaction, small)

    def _delivery(self, each: _Chosen, attempt: int, priority: int, content: tuple[bytes, ...] | None) -> Delivery:
        seq, _, id, account, message_id, delivery, created_at, dated_at, expires_at, *rest = each.message
        from_email, envelope_from, smtputf8, size, dsn = rest
        return Delivery(
            attempt=attempt,
            ahead=each.ahead,
            relay=each.want.relay,
            id=id,
            account=account,
            message_id=message_id,
            route=each.want.route,
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
            sealed_as=self._sealed_as(seq, each.due),
            recipients=tuple(due.recipient for due in each.due),
            content=content,
        )

    def _sealed_as(self, seq: int, due: Sequence[Due]) -> str | None:
        if not any(each.recipient.in_doubt for each in due):
            return None
        row = self.transaction.one("claim: sealed as", (seq,))
        return row[0] if row else None
