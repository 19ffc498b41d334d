"""The port to the store: what the spool may ask of it. One method for each query name; both dialects answer alike.

Times are milliseconds since the epoch. Every read and write of a message carries its account, so that another
account's id is simply not found. Writes out of `sending` are guarded by state and fence (the attempt's id): a method
answers how many rows it changed, and zero is an answer, not an error. Any method may raise errors.StorageUnavailable.

The conformance suite in tests/conformance runs the same sentences against every implementation.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from service.durations import Rate
from service.mail.envelope import Dsn, Offer
from service.mail.lifecycle import Event, State
from service.mail.quota import Quota
from service.mail.retry import History
from service.mail.trouble import Answer, RelayEvent, Standing, Trouble

# --- accept ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
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
    max_recipients: int | None = None  # in one delivery, where quotas are
    elsewhere: bool = False  # relays that are not asked now may carry this route too


@dataclass(frozen=True, slots=True)
class DueRecipient:
    """A recipient within a claimed delivery."""

    n: int
    email: str
    attempts: int  # charged before this one
    in_doubt: int  # attempts in doubt before this one
    history: History = field(default_factory=History)


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class RescuePolicy:
    """How orphaned attempts are closed (see DESIGN: in doubt, poison)."""

    in_doubt_delay: float  # seconds
    max_in_doubt: int
    max_kills: int


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


# --- what people read -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RecipientView:
    """A recipient as the API shows it."""

    n: int
    email: str
    name: str
    kind: str
    state: State
    updated_at: int
    due_at: int | None  # while it waits
    attempts: int
    in_doubt: int
    relay: str | None  # of the last attempt
    provider_message_id: str | None
    last_code: int | None
    last_enhanced: str
    last_text: str
    last_kind: str
    held_by: str | None = None  # relay and quota that put it off until `due_at`


@dataclass(frozen=True, slots=True)
class MessageView:
    """A message as the API shows it."""

    id: str
    account: str
    message_id: str
    created_at: int
    scheduled_at: int | None
    expires_at: int
    closed_at: int | None
    priority: int
    delivery: str
    route: str
    relay: str | None
    from_email: str
    envelope_from: str
    subject: str
    template: str | None
    tags: tuple[tuple[str, str], ...]
    metadata: tuple[tuple[str, str], ...]
    size: int
    content_purged_at: int | None
    warnings: tuple[Mapping[str, str], ...]
    recipients: tuple[RecipientView, ...]


@dataclass(frozen=True, slots=True)
class EventView:
    """One line of the delivery log. `data` holds reply, phase, relay, timings, what was done."""

    seq: int
    at: int
    type: str  # accepted | a lifecycle Event | rescheduled | erased
    recipient: str | None
    attempt: int | None
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class MessageFilter:
    """All conditions hold together; None means any."""

    status: str | None = None  # "has a recipient in that state"; also `scheduled`
    recipient: str | None = None
    from_email: str | None = None
    tag: str | None = None  # "name" or "name:value"
    metadata: tuple[tuple[str, str], ...] = ()
    template: str | None = None  # name, or name@version
    relay: str | None = None
    message_id: str | None = None
    provider_message_id: str | None = None
    since: int | None = None
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Suppression:
    """Why an address gets no mail. One address may stand there for an address fault and for an unsubscribe apart."""

    email: str
    reason: str  # bad_address | complaint | unsubscribe | manual
    origin: str  # delivery | api | bounce
    created_at: int
    message: str | None  # id of the message that led to it
    detail: str
    category: str = ""  # of an unsubscribe: only messages of this category are held back


@dataclass(frozen=True, slots=True)
class TemplateVersion:
    """One immutable form of a template: equal files, equal digest, equal number."""

    name: str
    number: int
    digest: str
    created_at: int


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key as stored: never its secret, only the SHA-256 of it."""

    id: str
    prefix: str
    digest: bytes
    account: str
    name: str
    scopes: tuple[str, ...]
    from_allowed: tuple[str, ...]  # addresses or domains; empty = any
    rate: str | None  # e.g. "100/s"
    created_at: int
    expires_at: int | None
    revoked_at: int | None


@dataclass(frozen=True, slots=True)
class WaitingLane:
    """Recipients of one route, priority and state that wait. Times are ms."""

    route: str
    priority: int
    state: State
    count: int
    due: int  # of them now
    in_doubt: int  # of them, had an attempt in doubt
    perhaps_sent: int  # of them, due now and accepted before the copy was taken
    oldest: int  # when its first message was accepted


@dataclass(frozen=True, slots=True)
class WaitingRecipient:
    """A recipient that waits, as an operator is shown it. Times are ms."""

    id: str
    account: str
    email: str
    route: str
    priority: int
    state: State
    due_at: int
    in_doubt: int
    created_at: int
    subject: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """What would be sent. `open_attempts`: of processes that have ended, or that send just now."""

    lanes: Sequence[WaitingLane]
    first: Sequence[WaitingRecipient]  # in the order of priority and due time
    open_attempts: int


@dataclass(frozen=True, slots=True)
class QueueStats:
    """For metrics and readiness. `oldest_due` is by priority, ms, only recipients that are due now."""

    counts: Mapping[State, int]
    oldest_due: Mapping[int, int]


# --- the protocol -----------------------------------------------------------------------------------------------


class Store(Protocol):
    """The only place with SQL. All methods may raise errors.StorageUnavailable."""

    async def open(self) -> None:
        """Connect, check the library's version, migrate, recover."""

    async def close(self) -> None:
        """Finish what is queued, close."""

    async def ping(self) -> None:
        """A durable write goes through; otherwise StorageUnavailable."""

    def healthy(self) -> bool:
        """Whether the last commit succeeded. While False the store reopens by itself in the background."""

    def on_hint(self, callback: Callable[[], None]) -> None:
        """`callback` is called on the loop when another process queued something. A hint: polling stays correct."""

    # accept
    async def accept(self, accept: Accept) -> AcceptResult:
        """Store a submission; returns after the durable commit that holds it."""

    async def find_answer(self, account: str, key: IdempotencyKey) -> Replayed | KeyMismatch | None:
        """What a key was answered with, before any work is done."""

    async def suppressed(self, account: str, emails: Sequence[str], category: str = "") -> Mapping[str, str]:
        """Those of `emails` that are suppressed for messages of `category`, with the reason."""

    # dispatch
    async def claim(
        self, wants: Callable[[], Sequence[Want]], holder: str, now: Callable[[], int], lease: float
    ) -> Claimed:
        """Lease due deliveries, opening one attempt each; both callables are asked when the transaction begins.

        Order: priority, then the order of `wants`, then due time. Expired recipients are expired and suppressed ones
        suppressed instead of being handed out. What every quota of the relay allows is taken in the same transaction;
        a recipient that a quota of its own holds is put off, or goes by another relay that is asked for its route.
        """

    async def quota_use(self, quotas: Sequence[Quota], now: int) -> Sequence[QuotaUse]:
        """How much is taken of quotas of whole relays, in the order asked."""

    async def delivery_content(self, id: str) -> tuple[bytes, ...] | None:
        """The bytes of a claimed delivery that were too large to come with the claim."""

    async def start_content(self, attempt: int, now: int) -> int:
        """Commit `content_started` of an at_most_once delivery; 0 means that the lease is lost: do not send."""

    def settle(self, settlement: Settlement) -> Awaitable[int]:
        """Close an attempt; answers the number of recipients changed (0: the lease was lost).

        What it took of quotas counts from now on, or is given back when it is `unspent`.

        It is queued by the call, not by awaiting it: no claim and no mark asked for later is durable before it.
        """

    async def heartbeat(self, holder: str, now: int, lease: float) -> int:
        """Renew the leases of `holder`'s open attempts."""

    async def rescue(self, now: int, policy: RescuePolicy) -> int:
        """Close attempts whose lease is over (or whose holder is known to be dead) as in doubt; answers how many."""

    async def due_routes(self) -> Sequence[DueRoute]:
        """Routes with waiting recipients; costs the number of routes, not of recipients."""

    async def expire(self, now: int, limit: int) -> int:
        """Expire waiting recipients whose ttl is over, at most `limit`; answers how many."""

    # reading
    async def get_message(self, account: str, id: str) -> MessageView | None: ...

    async def list_messages(
        self, account: str, where: MessageFilter, limit: int, after: str | None
    ) -> Sequence[MessageView]:
        """Newest first; `after` is the id that the last page ended with."""

    async def list_events(self, account: str, id: str) -> Sequence[EventView]: ...

    async def get_content(self, account: str, id: str) -> tuple[bytes, ...] | None:
        """The composed bytes, or None when unknown or purged."""

    # changing
    async def reschedule(self, account: str, id: str, at: int, content: tuple[bytes, ...], now: int) -> int:
        """Move a message all of whose recipients wait unattempted for the future; bytes change since Date does."""

    async def cancel(self, account: str, id: str, now: int) -> int:
        """Cancel the recipients that wait; answers how many."""

    async def cancel_where(self, account: str, where: MessageFilter, now: int, limit: int) -> Sequence[str]:
        """Cancel by filter, at most `limit` messages; answers the ids of those that were changed."""

    async def retry(self, account: str, id: str, now: int, due_at: int, expires_at: int) -> int:
        """Queue again what ended badly; answers how many recipients; raises ContentPurged without bytes."""

    async def erase(self, account: str, id: str, now: int) -> bool:
        """Cancel what waits and erase the content (subject, bytes, variables); the log stays. False: not found."""

    # suppressions
    async def list_suppressions(
        self, account: str, reason: str | None, limit: int, after: str | None
    ) -> Sequence[Suppression]: ...

    async def get_suppressions(self, account: str, email: str) -> Sequence[Suppression]: ...

    async def add_suppression(self, account: str, suppression: Suppression) -> bool:
        """False when it stood there already."""

    async def remove_suppressions(
        self, account: str, email: str, reason: str | None, category: str | None = None
    ) -> int: ...

    # templates
    async def publish_template(self, name: str, digest: str, files: str, now: int, *, current: bool) -> int:
        """Keep a version; answers its number, the old one when these files were there before.

        `files`: JSON. With `current`, the bare name means this version from here on.
        """

    async def retire_template(self, name: str) -> bool:
        """Take the bare name away; its versions stay. False: it was not published."""

    async def published_templates(self, name: str | None = None) -> Sequence[TemplateVersion]:
        """The current versions of published names: all, or of one name."""

    async def template_versions(self, name: str, limit: int) -> Sequence[TemplateVersion]:
        """The versions of one name, newest first."""

    async def template_files(self, name: str, number: int) -> str | None:
        """The files of one version, as JSON."""

    # what relays offer
    async def learn_offer(self, endpoint: str, offer: Offer, now: int) -> None:
        """Keep what a relay's EHLO said to a session of ours, for processes that open none."""

    async def offers(self) -> Mapping[str, Offer]:
        """What is known of relays, by endpoint."""

    # what processes tell each other about relays; mail/trouble has the rules. All but the reads and `ask_login` are
    # queued by the call, as `settle` is
    async def relay_accounts(self) -> Mapping[str, Standing]:
        """How each account stands. A prober whose process is known to be dead is left out."""

    async def ask_login(self, account: str, mark: str, prober: str, now: int, lease: float) -> Answer:
        """Ask for the right to log in (Standing.answer), and take it for `lease` seconds where it is granted.

        prober: `holder/relay`. Another secret than the last one that had the right is an event.
        """

    def prove_login(self, mark: str, prober: str, event: RelayEvent) -> Awaitable[bool]:
        """A login succeeded (Standing.prove). True: that opened a broken relay; only then the event is kept."""

    def fail_login(self, trouble: Trouble, prober: str, event: RelayEvent) -> Awaitable[bool]:
        """A login failed: the trouble is recorded and the right given back in one transaction. See `record_trouble`."""

    def release_login(self, account: str, prober: str) -> Awaitable[bool]:
        """Give the right back. False: it was not this prober's."""

    def record_trouble(self, account: str, trouble: Trouble, event: RelayEvent | None) -> Awaitable[bool]:
        """Keep a trouble unless the known one lasts longer (Standing.record). True: it is news, and the event is kept."""

    def forgive_trouble(self, account: str, trouble: Trouble) -> Awaitable[bool]:
        """Forget a trouble if it is still this one."""

    def clear_troubles(self, event: RelayEvent) -> Awaitable[int]:
        """Forget all troubles of the event's account; answers how many."""

    def add_relay_event(self, event: RelayEvent) -> Awaitable[None]:
        """Keep an event; the last 200 of an account are kept."""

    async def relay_events(self, account: str, limit: int) -> Sequence[RelayEvent]:
        """Newest first."""

    async def show_relays(self, views: Sequence[RelayView]) -> None:
        """What this process sees of its relays."""

    async def relay_views(self, since: int) -> Sequence[RelayView]:
        """What was seen after `since` (ms), by whomever."""

    # keys and limits
    async def find_key(self, prefix: str) -> ApiKey | None: ...

    async def add_key(self, key: ApiKey, *, only_if_none: bool = False) -> bool:
        """Store a key; with `only_if_none`, only into a store that has no key at all."""

    async def list_keys(self, account: str | None) -> Sequence[ApiKey]: ...

    async def revoke_key(self, account: str | None, id: str, now: int) -> bool: ...

    # housekeeping
    async def purge_content(self, now: int, older_than: int, limit: int) -> int:
        """Delete the bytes of messages closed before `older_than`; answers how many messages."""

    async def purge_log(self, older_than: int, limit: int) -> int:
        """Delete messages closed before `older_than`, with their log."""

    async def purge_keys(self, now: int, retention: float, limit: int) -> int:
        """Delete idempotency keys past their time, and idle limiter rows."""

    async def purge_relays(self, now: int, events_before: int, limit: int) -> int:
        """Delete events of relays older than that, and at once all that is stale; answers how many events."""

    async def stats(self, now: int) -> QueueStats: ...

    # after a backup was restored
    async def copied_at(self) -> int | None:
        """When the copy that this store is was taken, ms; None: it is no copy, or was released."""

    async def release_copy(self) -> bool:
        """From the next start on, this store's mail is sent. False: it was no copy."""

    async def waiting(self, now: int, limit: int) -> Waiting:
        """All that waits, and the first `limit` of it. Costs a look at each waiting recipient: for operators."""
