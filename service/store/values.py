"""What is handed to the store and what it hands out to those who accept and send: submissions, claims and settlements.

Values only: times are milliseconds since the epoch. What people read of it is store/shown's, what may be asked store/port's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from service.durations import Rate
from service.mail.envelope import Dsn
from service.mail.lifecycle import Event, State
from service.mail.quota import Quota
from service.mail.retry import History

# --- accept ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)  # not frozen: one is made for each message
class NewRecipient:
    """One forward-path as accepted; `state` is one of lifecycle.INITIAL."""

    email: str
    name: str
    kind: str  # to | cc | bcc
    state: State = State.QUEUED


@dataclass(frozen=True, slots=True)
class ItemKey:
    """An item's own idempotency key in a batch: its fingerprint and the answer that a repeat will get."""

    key: str
    fingerprint: bytes
    answer: bytes


@dataclass(slots=True)  # not frozen: to make a frozen one of so many fields takes seven times as long
class NewMessage:
    """Everything that is stored when a message is accepted."""

    id: str
    account: str
    message_id: str  # RFC 5322 Message-ID without <>
    created_at: int
    scheduled_at: int | None
    due_at: int
    expires_at: int
    priority: int  # 0 high, 1 normal, 2 low
    delivery: str  # at_least_once | at_most_once
    route: str
    relay: str | None  # pinned
    from_email: str
    envelope_from: str
    subject: str
    template: str | None  # name@version
    tags: tuple[tuple[str, str], ...]
    metadata: tuple[tuple[str, str], ...]
    smtputf8: bool
    size: int
    content: tuple[bytes, ...]  # pieces; equal pieces of 64 KiB or more are stored once
    recipients: tuple[NewRecipient, ...]
    warnings: tuple[Mapping[str, str], ...] = ()
    item: ItemKey | None = None
    category: str = ""  # of the template: who unsubscribed from it gets none
    dsn: Dsn | None = None  # without its id, which is the message's
    traceparent: str | None = None  # of the request that accepted it; kept in the first line of its log


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """The key of a request (or of one item of a batch) and the fingerprint of what was asked."""

    key: str
    fingerprint: bytes


@dataclass(slots=True)  # not frozen: one is made for each message
class Take:
    """Take `cost` from a limiter named `bucket`, all or nothing with the accept it belongs to."""

    bucket: str
    rate: Rate
    cost: int = 1
    pointer: str = ""  # the field that is to blame, e.g. "#/to/0"


@dataclass(frozen=True, slots=True)
class Accept:
    """One submission: its messages are stored all or none, with the answer that a repeat will get."""

    account: str
    messages: Sequence[NewMessage]
    now: int
    answer: bytes  # the 202 body, kept under the key
    key: IdempotencyKey | None = None
    key_expires_at: int = 0
    takes: Sequence[Take] = ()


@dataclass(frozen=True, slots=True)
class Accepted:
    """Committed: a 202 may be given."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """The same key and fingerprint were accepted before; nothing was stored now."""

    answer: bytes


@dataclass(frozen=True, slots=True)
class KeyMismatch:
    """The key was used with another request; nothing was stored."""


@dataclass(frozen=True, slots=True)
class Limited:
    """A limiter said no; nothing was stored."""

    take: Take
    retry_after: float  # seconds


AcceptResult = Accepted | Replayed | KeyMismatch | Limited

# --- claim and settle --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Want:
    """Up to `limit` deliveries of one route, to be sent by `relay`."""

    route: str
    relay: str
    limit: int
    slots: int = 2**31  # free slots of that relay: what is claimed beyond them waits for a busy one, ahead
    sealed_as: str = ""  # that relay's sender rule: kept with the attempt before MAIL FROM, whoever dies
    quotas: tuple[Quota, ...] = ()  # of that relay: no more is handed out than they allow
    least: int = 2  # the least urgent priority that is asked for
    max_recipients: int | None = None  # in one delivery; those beyond stay due, for others
    elsewhere: bool = False  # relays that are not asked now may carry this route too


@dataclass(slots=True)
class DueRecipient:
    """A recipient within a claimed delivery."""

    n: int
    email: str
    attempts: int  # charged before this one
    in_doubt: int  # attempts in doubt before this one
    history: History = field(default_factory=History)


@dataclass(slots=True)
class Delivery:
    """All due recipients of one message on one route, claimed: `attempt` is the opened attempt and the fence."""

    attempt: int
    ahead: bool  # waits for a busy slot: its content is marked (start_content) before it starts
    relay: str
    id: str
    account: str
    message_id: str
    route: str
    priority: int
    delivery: str
    created_at: int
    dated_at: int  # what its Date says: the time of acceptance or of the schedule, the later
    expires_at: int
    from_email: str
    envelope_from: str
    smtputf8: bool
    dsn: Dsn | None
    size: int
    sealed_as: str | None  # the sender rule of an earlier attempt in doubt: no other may be applied now
    recipients: tuple[DueRecipient, ...]
    content: tuple[bytes, ...] | None  # None: over 1 MiB, ask for `delivery_content`


@dataclass(frozen=True, slots=True)
class Held:
    """A relay whose quota lets no mail of this priority, nor of a less urgent one, go before `until` (ms)."""

    relay: str
    priority: int
    until: int
    quota: str  # as people read it


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim hands out, and what kept it from handing out more."""

    deliveries: Sequence[Delivery]
    held: Sequence[Held] = ()
    cut: bool = False  # it stopped at a bound of its own: there may be more


@dataclass(frozen=True, slots=True)
class QuotaUse:
    """How much of a relay's quota is taken. `free_at`: when one more may go (ms), 0: now."""

    quota: Quota
    used: int  # what is in flight included
    in_flight: int
    free_at: int  # for priority normal and low
    free_at_high: int

    def left_for(self, priority: int) -> int:
        """How many units mail of this priority may still take."""
        return max(self.quota.count_for(priority) - self.used, 0)


@dataclass(slots=True)
class RecipientSettlement:
    """What an attempt came to for one recipient; `event` is applied to `sending`."""

    n: int
    event: Event
    kind: str  # class of the outcome, e.g. "bad-address"
    phase: str
    charged: bool
    due_at: int | None = None  # for events that lead back to the queue; never after the message's expires_at
    in_doubt: bool = False
    code: int | None = None
    enhanced: str = ""
    text: str = ""
    provider_message_id: str | None = None
    suppress: str | None = None  # reason with which the address enters the suppression list
    scope: str = ""  # who was at fault
    action: str = ""  # what was done about it
    relay_until: int | None = None  # ms; until when the relay rests for it
    reconnected: bool = False  # it has a new connection for nothing
    left_out: bool = False  # it was not in the transaction: the log has one line for all such


@dataclass(slots=True)
class Settlement:
    """One attempt, closed. Attempt, states, events and suppressions commit together, or nothing does."""

    attempt: int
    id: str
    account: str
    now: int
    result: str  # sent | partly_sent | deferred | refused | failed | in_doubt | not_started
    recipients: Sequence[RecipientSettlement]
    sealed_as: str | None = None
    signed_by: Sequence[str] = ()  # DKIM keys
    session: str = ""
    timings: Mapping[str, float] = field(default_factory=dict)
    detail: str = ""
    unspent: bool = False  # no MAIL FROM was written: what it took of quotas is given back
    route: str | None = None  # by which its recipients go from here on, where that is another one


@dataclass(frozen=True, slots=True)
class RescuePolicy:
    """Which attempts are orphans, and how they are closed (see DESIGN: in doubt, poison).

    A process that was kept from the storage for longer than a lease still knows what became of its attempts, and writes
    that down as soon as it can: so its own are no orphans to it, and those of others not before they had time to renew.
    """

    in_doubt_delay: float  # seconds
    max_in_doubt: int
    max_kills: int
    holder: str = ""  # who asks: works on what it holds, however long its leases are over
    grace: float = 0.0  # seconds after the storage has recovered, in which only the dead leave orphans


@dataclass(frozen=True, slots=True)
class DueRoute:
    """A route with waiting recipients: when its first one of each priority is due."""

    route: str
    priority: int
    due_at: int


@dataclass(frozen=True, slots=True)
class RelayView:
    """What one process sees of a relay. Times are ms, 0: never."""

    holder: str
    relay: str
    seen_at: int
    connections: int
    in_flight: int
    sent: int  # since the process began
    last_reply: str
    reply_at: int
    last_error: str
    error_at: int
