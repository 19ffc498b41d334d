"""Claim: lease due deliveries, one lane after the other, opening one attempt for each.

A lane is a route and a priority, in order of due time; one index holds the lanes of all that waits, so what waits on
other routes costs nothing. The attempt's id is the fence token. Messages are held with SKIP LOCKED, so two replicas
that claim at once get different ones and neither waits.

What is due is read in rounds of a few statements and decided in memory: a lane is read on while it only gave messages
that ended or that must wait, up to a bound. Quotas (store/quotas.py) are held all at once in the first round, in one
order; where recipients have quotas of their own there is only that round, and `cut` tells that there may be more.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from service import failpoints
from service.mail.lifecycle import Event, State, apply
from service.mail.quota import Per
from service.mail.retry import History
from service.store.choosing import DOUBTED_FOR, Asked, Choice, Due, PutOff, choose, most_read
from service.store.postgres.contents import contents_of
from service.store.postgres.session import Rows
from service.store.postgres.settle import end_waiting
from service.store.postgres.statements import Statement, statement
from service.store.postgres.transaction import Transaction
from service.store.quotas import Quotas
from service.store.values import Claimed, Delivery, DueRecipient, Want
from service.store.views import SPAN, dsn_of

PRIORITIES = (0, 1, 2)
_CONTENT_WITH_DELIVERY = 1024 * 1024  # octets
_CONTENT_WITH_CLAIM = 4 * 1024 * 1024  # octets of all deliveries together
_ENDED_WITH_CLAIM = 200  # messages that end or are put off instead of being handed out
_MORE = 4  # times as many rows of a lane are read in each further round
_MOST_ROWS = 2000


@dataclass(slots=True)
class _Lane:
    """A route and a priority: messages that were read and not yet decided, and whether there may be more."""

    route: str
    priority: int
    most: int  # rows of the next look
    waiting: deque[int] = field(default_factory=deque)
    full: bool = False


@dataclass(slots=True)
class _Message:
    """What was read of a message: its row, whom it could go to, and whose waiting ends; at most so many recipients."""

    row: tuple[Any, ...]
    most: int | None
    read: int = 0
    due: list[Due] = field(default_factory=list)
    ends: list[tuple[int, State, Event, str]] = field(default_factory=list)


@dataclass(slots=True)
class Claiming:
    """One claim under way, and what is left of its bounds."""

    transaction: Transaction
    asked: Sequence[Asked]
    now: int
    told: int  # ms, see Store.claim
    slots: dict[str, int]  # free slots by relay; what is claimed beyond them is ahead
    octets: int = _CONTENT_WITH_CLAIM
    ends: int = _ENDED_WITH_CLAIM
    cut: bool = False  # some due recipients of a message, or of a lane, were left for another claim
    quotas: Quotas | None = None
    claimed: list[Delivery] = field(default_factory=list)
    _lanes: dict[tuple[str, int], _Lane] = field(default_factory=dict)
    _next: list[_Lane] = field(default_factory=list)  # lanes to read on
    _seen: set[int] = field(default_factory=set)
    _messages: dict[tuple[int, str], _Message] = field(default_factory=dict)  # by number and route
    _numbers: list[int] = field(default_factory=list)
    _over: list[tuple[int, State, Event, str]] = field(default_factory=list)
    _off: list[dict[str, Any]] = field(default_factory=list)
    _attempts: list[dict[str, Any]] = field(default_factory=list)
    _leases: list[dict[str, Any]] = field(default_factory=list)
    _carried: dict[int, int] = field(default_factory=dict)  # place among `claimed` of those that carry their bytes

    @classmethod
    def of(cls, transaction: Transaction, wants: Sequence[Want], now: int, told: int) -> "Claiming":
        """A claim of these wants."""
        asked = [Asked(want, want.limit) for want in wants if want.limit > 0]
        claiming = cls(transaction, asked, now, told, {want.relay: want.slots for want in wants})
        for priority in PRIORITIES:
            for each in asked:
                if priority <= each.want.least:
                    lane = claiming._lanes.setdefault((each.want.route, priority), _Lane(each.want.route, priority, 0))
                    lane.most = min(lane.most + each.left + _ENDED_WITH_CLAIM * each.narrow, _MOST_ROWS)
        claiming._next = list(claiming._lanes.values())
        return claiming

    # --- read ----------------------------------------------------------------------------------------------------

    def look(self) -> list[Statement]:
        """Hold the first due messages of the lanes that are to be read on."""
        if not self._next:
            return []
        rows = [
            {"place": place, "route": lane.route, "priority": lane.priority, "most": lane.most}
            for place, lane in enumerate(self._next)
        ]
        return [statement("claim: waiting", {"rows": rows, "now": self.now, "seen": sorted(self._seen)})]

    def learn_lanes(self, rows: Rows) -> list[int]:
        """What `look` answered; the messages to read."""
        found: list[list[int]] = [[] for _ in self._next]
        for place, seq in rows:
            found[place].append(seq)
        new: dict[int, None] = {}
        for lane, seqs in zip(self._next, found, strict=True):
            lane.full = len(seqs) >= lane.most
            lane.waiting.extend(seq for seq in dict.fromkeys(seqs) if seq not in self._seen)
            new |= dict.fromkeys(lane.waiting)
        self._next = []
        self._seen |= set(new)
        return list(new)

    def read(self, seqs: Sequence[int]) -> list[Statement]:
        """What there is to know of messages, now that nobody else can change it, and numbers for their attempts."""
        if not seqs:
            return []
        given = self._of_each(seqs)
        count = min(sum(each.left for each in self.asked), len(given["seqs"]))
        return [
            statement("claim: message", {"seqs": list(seqs)}),
            statement("claim: recipients", given | {"now": self.now}),
            statement("claim: numbers", {"count": count}),
        ]

    def _of_each(self, seqs: Sequence[int]) -> dict[str, list[Any]]:
        """How many recipients of which messages are read: no more than can go, or a message to many that goes to few at once
        would be read and written with the square of their number.
        """
        new = set(seqs)
        read = {(seq, lane.route): None for lane in self._lanes.values() for seq in lane.waiting if seq in new}
        return {
            "seqs": [seq for seq, _ in read],
            "routes": [route for _, route in read],
            "mosts": [self._most(route) for _, route in read],
        }

    def _most(self, route: str) -> int | None:
        """Of a message on this route: as many as any relay of the claim could need."""
        mosts = [most_read(each.want) for each in self.asked if each.want.route == route]
        known = [most for most in mosts if most is not None]
        return max(known) if len(known) == len(mosts) else None

    def learn_messages(self, messages: Rows, recipients: Rows, numbers: Rows) -> None:
        """What `read` answered."""
        known = {row[0]: row for row in messages}
        for lane in self._lanes.values():
            for seq in lane.waiting:
                if seq in known:
                    self._messages[seq, lane.route] = _Message(known[seq], self._most(lane.route))
        for row in recipients:
            self._learn_recipient(*row)
        self._numbers += [number for (number,) in numbers]

    def _learn_recipient(
        self, rid: int, email: str, key: str, attempts: int, in_doubt: int, expires_at: int, state: str, route: str,
        counted: str, count: int, reconnected_at: int | None, suppressed: str | None,
    ) -> None:  # fmt: skip
        message = self._messages[rid // SPAN, route]
        message.read += 1
        if expires_at <= self.now:
            message.ends.append((rid, State(state), Event.EXPIRE, "ttl is over"))
        elif expires_at <= self.told:
            self._off.append({"rid": rid, "due_at": self.now + DOUBTED_FOR, "held_by": None})
        elif suppressed is not None:
            message.ends.append((rid, State(state), Event.SUPPRESS, suppressed))
        else:
            history = History(counted, count, reconnected_at)
            recipient = DueRecipient(rid % SPAN, email, attempts, in_doubt, history)
            message.due.append(Due(recipient, State(state), key, expires_at))

    def buckets(self) -> set[str]:
        """All quotas that could be asked about what was read."""
        found: set[str] = set()
        for lane in self._lanes.values():
            keys = [due.key for seq in lane.waiting for due in self._messages[seq, lane.route].due]
            for each in self.asked:
                if each.want.route == lane.route and lane.priority <= each.want.least:
                    found |= {quota.bucket(key) for quota in each.want.quotas for key in _keys(quota.per, keys)}
        return found

    # --- decide --------------------------------------------------------------------------------------------------

    def decide(self) -> bool:
        """Hand out, end, or put off what was read, in order; whether a lane must be read on."""
        for priority in PRIORITIES:
            for each in self.asked:
                if priority <= each.want.least:
                    lane = self._lanes[each.want.route, priority]
                    if not self._decide_lane(each, lane):
                        self._next = [lane]
                        return True
        return False

    def _decide_lane(self, asked: Asked, lane: _Lane) -> bool:
        """False: it has run dry, though more of it was wanted and there may be more."""
        while asked.left > 0 and self.ends > 0 and not self._held(asked.want.relay, lane.priority):
            if not lane.waiting:
                return not self._may_read_on(lane)
            if not self._message(lane.waiting[0], asked, lane.priority):
                return True  # it stays for another relay
            lane.waiting.popleft()
        return True

    def _may_read_on(self, lane: _Lane) -> bool:
        if not lane.full:
            return False
        if any(each.narrow for each in self.asked if each.want.route == lane.route):
            self.cut = True  # its recipients' quotas could no more be held in one order
            return False
        lane.most = min(lane.most * _MORE, _MOST_ROWS)
        return True

    def _held(self, relay: str, priority: int) -> bool:
        return self.quotas is not None and self.quotas.held(relay, priority) is not None

    def _message(self, seq: int, asked: Asked, priority: int) -> bool:
        """Lease one message's due recipients, or let it end or wait. False: this relay can't say, another one may."""
        message = self._messages[seq, asked.want.route]
        choice: Choice | None = None
        if message.due and asked.want.quotas:
            assert self.quotas is not None
            choice = choose(self.quotas, self.asked, asked, priority, message.due)
            if choice is None:
                return False
            self._put_off(seq, choice.off)
        self._over += message.ends
        self.cut |= message.read == message.most
        if not message.due or (choice is not None and choice.asked is None):
            self.ends -= 1
            return True
        if choice is not None and choice.asked is not None:
            self.cut |= choice.cut
            asked, due, taken = choice.asked, choice.due, choice.taken
        else:
            due, taken = message.due[: asked.want.max_recipients], None
            self.cut |= len(due) < len(message.due)
        asked.left -= 1
        self._hand_out(message, asked.want, priority, due, taken)
        return True

    def _put_off(self, seq: int, off: Sequence[PutOff]) -> None:
        for each in off:
            rid = seq * SPAN + each.due.recipient.n
            self._off.append({"rid": rid, "due_at": each.until, "held_by": each.by})

    def _hand_out(self, message: _Message, want: Want, priority: int, due: list[Due], taken: str | None) -> None:
        (seq, id, account, message_id, delivery, created_at, dated_at, expires_at, from_email, envelope_from, smtputf8,
         size, dsn, sealed_as) = message.row  # fmt: skip
        ahead = self.slots[want.relay] <= 0
        self.slots[want.relay] -= 1
        if size <= min(_CONTENT_WITH_DELIVERY, self.octets):
            self.octets -= size
            self._carried[seq] = len(self.claimed)
        doubtful = any(each.recipient.in_doubt for each in due)
        handed = Delivery(
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
            smtputf8=smtputf8,
            dsn=dsn_of(dsn, id),
            size=size,
            sealed_as=sealed_as if doubtful else None,
            recipients=tuple(each.recipient for each in due),
            content=None,
        )
        self.claimed.append(handed)

    def _open_attempt(self, seq: int, want: Want, due: Sequence[Due], ahead: bool, taken: str | None) -> int:
        if taken is not None:
            failpoints.passed("claim.quota_taken")
        attempt = self._numbers.pop(0)
        row = {"id": attempt, "message": seq, "relay": want.relay, "sealed_as": want.sealed_as or None}
        self._attempts.append(row | {"ahead": ahead, "taken": taken})
        for each in due:
            leased = apply(each.state, Event.CLAIM)
            self.transaction.move(each.state, leased)
            rid = seq * SPAN + each.recipient.n
            self._leases.append({"rid": rid, "state": leased.value, "attempt": attempt, "relay": want.relay})
        return attempt

    # --- write ---------------------------------------------------------------------------------------------------

    def writes(self, holder: str, lease: float, leased_at: int | None) -> list[Statement]:
        """What was decided. The bytes of what is handed out are read by the last one, if there are any."""
        found = end_waiting(self.transaction, self._over, self.now)
        if self._off:
            found.append(statement("claim: put off", {"rows": self._off}))
        if self._attempts:
            given = {"holder": holder, "now": self.now, "lease": int(lease * 1000), "leased_at": leased_at}
            found.append(statement("claim: attempts", {"rows": self._attempts, **given}))
            found.append(statement("claim: lease", {"rows": self._leases, "now": self.now}))
        if self._carried:
            found.append(statement("delivery_content: by seq", {"seqs": sorted(self._carried)}))
        return found

    def states(self) -> dict[str, tuple[bytes, int]]:
        """Quotas that changed, and from when on each is idle."""
        if self.quotas is None:
            return {}
        return {bucket: (takes.pack(), takes.idle_after) for bucket, takes in self.quotas.changed()}

    def result(self, contents: Rows) -> Claimed:
        """What is handed out, once it is committed."""
        for seq, pieces in contents_of(contents if self._carried else []).items():
            place = self._carried[seq]
            self.claimed[place] = replace(self.claimed[place], content=pieces)
        held = tuple(self.quotas.holds.values()) if self.quotas is not None else ()
        return Claimed(self.claimed, held, self.cut or self.ends == 0)


def _keys(per: Per, keys: Sequence[str]) -> Sequence[str]:
    """The addresses whose quotas are meant; one of the whole relay needs none."""
    return ("",) if per is Per.RELAY else keys
