"""The port to the store: what the spool may ask of it. One method for each query name; both dialects answer alike.

Times are milliseconds since the epoch. Every read and write of a message carries its account, so that another
account's id is simply not found. Writes out of `sending` are guarded by state and fence (the attempt's id): a method
answers how many rows it changed, and zero is an answer, not an error. Any method may raise errors.StorageUnavailable.

What is handed over and handed out stands in store/values and store/shown. The conformance suite in tests/conformance runs
the same sentences against every implementation.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from service.mail.envelope import Offer
from service.mail.quota import Quota
from service.mail.trouble import Answer, RelayEvent, Standing, Trouble
from service.store.shown import (
    ApiKey,
    EventView,
    MessageFilter,
    MessageView,
    QueueStats,
    Suppression,
    TemplateVersion,
    Waiting,
)
from service.store.values import (
    Accept,
    AcceptResult,
    Claimed,
    DueRoute,
    IdempotencyKey,
    KeyMismatch,
    QuotaUse,
    RelayView,
    Replayed,
    RescuePolicy,
    Settlement,
    Want,
)


class Store(Protocol):
    """The only place with SQL. All methods may raise errors.StorageUnavailable."""

    async def open(self) -> None:
        """Connect, check the library's version, migrate, recover."""

    async def close(self) -> None:
        """Finish what is queued, close."""

    async def ping(self) -> None:
        """A durable write goes through; otherwise StorageUnavailable. `last_ping` tells of it."""

    def healthy(self) -> bool:
        """Whether the last commit succeeded. While False the store reopens by itself in the background."""

    def on_hint(self, callback: Callable[[], None]) -> None:
        """`callback` is called on the loop when another process queued something. A hint: polling stays correct."""

    async def make_way(self) -> None:
        """Who computes for long lets others run, and first of all whoever holds what other processes wait for."""

    # accept
    async def accept(self, accept: Accept) -> AcceptResult:
        """Store a submission; returns after the durable commit that holds it."""

    async def find_answer(self, account: str, key: IdempotencyKey) -> Replayed | KeyMismatch | None:
        """What a key was answered with, before any work is done."""

    async def suppressed(self, account: str, emails: Sequence[str], category: str = "") -> Mapping[str, str]:
        """Those of `emails` that are suppressed for messages of `category`, with the reason."""

    # dispatch
    async def claim(
        self,
        wants: Callable[[], Sequence[Want]],
        holder: str,
        now: Callable[[], int],
        lease: float,
        told: Callable[[], int] | None = None,
    ) -> Claimed:
        """Lease due deliveries, opening one attempt each; all callables are asked when the transaction begins.

        told: what the wall clock says, be it doubted or not (service/steady.py); None: as `now` does. A recipient whose ttl
        is over by it alone is put off for half a minute.

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
        """Renew the leases of `holder`'s open attempts. `now` is what the wall clock tells, as for all leases (`told`)."""

    async def rescue(self, now: int, policy: RescuePolicy, told: int | None = None) -> int:
        """Close attempts whose lease is over (or whose holder is known to be dead) as in doubt; answers how many.

        told: the time by which leases are over, ms; None: as `now`. See claim: processes on one file doubt one wall clock at
        different times, and must not take each other's mail for it.
        """

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
        """How each account stands. A prober whose process is known to be dead is left out.

        What lasts for longer than its length from now on is cut to that, for all: the clock of who told it was ahead.
        """

    async def ask_login(
        self, account: str, mark: str, prober: str, now: int, lease: float, force: float | None = None
    ) -> Answer:
        """Ask for the right to log in (Standing.answer), and take it for `lease` seconds where it is granted.

        force: seconds, see Standing.answer. prober: `holder/relay`. Another secret than the last one that had the right is an event.
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
    async def newest_moment(self) -> int | None:
        """When the newest line of the delivery log was written, ms, by the clock of who wrote it; None: there is none."""

    async def last_ping(self) -> int | None:
        """When a process has last pinged this store, ms, by its clock; None: none has."""

    async def purge_content(self, now: int, older_than: int, limit: int) -> int:
        """Delete the bytes of messages closed before `older_than`; answers how many messages.

        Where the store has a clock of its own that is behind `now`, older means older by that one; so it does for the
        log and the keys.
        """

    async def purge_log(self, now: int, older_than: int, limit: int) -> int:
        """Delete messages closed before `older_than`, with their log."""

    async def purge_keys(self, now: int, retention: float, limit: int) -> int:
        """Delete idempotency keys past their time, and idle limiter rows."""

    async def purge_relays(self, now: int, events_before: int, limit: int) -> int:
        """Delete events of relays older than that, and at once all that is stale; answers how many events.

        Older by the earlier of two clocks, as in purge_content.
        """

    async def stats(self, now: int) -> QueueStats: ...

    # after a backup was restored
    async def copied_at(self) -> int | None:
        """When the copy that this store is was taken, ms; None: it is no copy, or was released."""

    async def release_copy(self) -> bool:
        """From the next start on, this store's mail is sent. False: it was no copy."""

    async def store_time(self, now: int) -> int:
        """What time it is by the clock of the store's own that all processes go by, ms; `now` where it has none."""

    async def waiting(self, now: int, limit: int) -> Waiting:
        """All that waits, and the first `limit` of it. Costs a look at each waiting recipient: for operators."""
