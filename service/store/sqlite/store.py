"""The Store on SQLite: one file, one writing connection with group commit, short reads beside it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import apsw

from service.clock import Clock
from service.errors import StorageUnavailable
from service.mail.address import email_key
from service.mail.lifecycle import State
from service.mail.quota import Quota
from service.store.patience import in_a_thread_of_its_own
from service.store.shown import ApiKey, EventView, MessageFilter, MessageView, QueueStats, Suppression
from service.store.sqlite import accept as accepting
from service.store.sqlite import changes, claim, rescue
from service.store.sqlite.files import Hints, Holders, connect_reader, connect_writer, migrate_file
from service.store.sqlite.quotas import use_of
from service.store.sqlite.reads import Reader, Readers
from service.store.sqlite.recovery import Recovery
from service.store.sqlite.restoring import RestoringStore
from service.store.sqlite.sending import Mark, write_down
from service.store.sqlite.telling import TellingStore
from service.store.sqlite.templates import TemplateStore
from service.store.sqlite.transaction import Steps, Transaction
from service.store.sqlite.writer import Writer
from service.store.stalls import Stalls
from service.store.unanswered import Unanswered
from service.store.values import (
    Accept,
    AcceptResult,
    Claimed,
    DueRoute,
    IdempotencyKey,
    KeyMismatch,
    QuotaUse,
    Replayed,
    RescuePolicy,
    Settlement,
    Want,
)
from service.store.views import key_of, key_row
from service.telemetry import Metrics


class SQLiteStore(TellingStore, RestoringStore, TemplateStore):
    """Implements store/port.Store. Point reads run on the loop (microseconds), lists in a thread."""

    def __init__(self, path: str, clock: Clock, holder: str, metrics: Metrics | None = None) -> None:
        self._path = str(Path(path).absolute())
        self._clock = clock
        self._holders = Holders(self._path, holder)
        self._hints = Hints(self._path, holder)
        self._stalls = Stalls(clock)
        self._unanswered = Unanswered()
        recovery = Recovery(self._unanswered)
        lock = f"{self._path}.lock"
        self._writer = Writer(
            lambda: connect_writer(self._path), lock, self._hints.send, recovery, metrics, self._stalls.recovered
        )
        self._reader: Reader | None = None
        self._lists = Readers(lambda: connect_reader(self._path), 2, "store-lists")
        self._contents = Readers(lambda: connect_reader(self._path), 1, "store-contents")
        self._closing = False

    async def open(self) -> None:
        """See port."""
        try:
            # first seen, then let in: who moves the file away holds its lock and looks for holders after that
            self._holders.enter()
            migrated = await in_a_thread_of_its_own(lambda: migrate_file(self._path))
            migrated.tell()
            await self._writer.start()
            self._reader = Reader(connect_reader(self._path))
            self._stalls.recovered()
        except (apsw.Error, OSError) as error:
            self._holders.leave()
            raise StorageUnavailable(f"POSTROOM_DATABASE_URL: {self._path}: {error}") from error
        except BaseException:
            self._holders.leave()
            raise

    async def close(self) -> None:
        """See port."""
        if self._closing:
            return
        self._closing = True
        self._lists.close()
        self._contents.close()
        if self._reader is not None:
            self._reader.close()
        await self._writer.stop()  # last of the connections: it folds the WAL into the file
        self._hints.close()
        self._holders.leave()

    async def ping(self) -> None:
        """See port."""
        await self._write(lambda transaction: transaction.run("ping: write", {"at": self._clock.now()}))

    def healthy(self) -> bool:
        """See port."""
        return self._writer.healthy

    def on_hint(self, callback: Callable[[], None]) -> None:
        """See port."""
        self._hints.listen(callback)

    async def make_way(self) -> None:
        """See port."""
        await self._writer.make_way()

    # --- accept --------------------------------------------------------------------------------------------------

    async def accept(self, accept: Accept) -> AcceptResult:
        """See port."""
        sizes = [message.size for message in accept.messages]
        try:
            return await self._write_steps(
                lambda transaction: accepting.accept(transaction, accept), sum(sizes), max(sizes)
            )
        except accepting.Refused as refused:
            return refused.result

    async def find_answer(self, account: str, key: IdempotencyKey) -> Replayed | KeyMismatch | None:
        """See port."""
        bindings = {"account": account, "key": key.key}
        return accepting.find_answer(self._read(lambda reader: reader.one("accept: find request", bindings)), key)

    async def suppressed(self, account: str, emails: Sequence[str], category: str = "") -> Mapping[str, str]:
        """See port."""

        asked = [(account, email_key(email), category) for email in emails]
        rows = self._read(lambda reader: reader.each("suppressed: by address", asked))
        return {key: f"{reason} from {only}" if only else reason for key, reason, only in rows}

    # --- dispatch ------------------------------------------------------------------------------------------------

    async def claim(
        self,
        wants: Callable[[], Sequence[Want]],
        holder: str,
        now: Callable[[], int],
        lease: float,
        told: Callable[[], int] | None = None,
    ) -> Claimed:
        """See port."""
        asked: list[Want] = []

        def work(transaction: Transaction) -> Claimed:
            found = claim.claim(transaction, asked, holder, now, lease, told or now)
            self._unanswered.add(found.deliveries, now(), holder)
            return found

        claimed: Claimed = await self._writer.submit(work, prepare=lambda: asked.extend(wants()), sure=True)
        self._unanswered.forget([each.attempt for each in claimed.deliveries])
        return claimed

    async def quota_use(self, quotas: Sequence[Quota], now: int) -> Sequence[QuotaUse]:
        """See port."""
        return self._read(lambda reader: [use_of(each, reader.one, now) for each in quotas])

    async def delivery_content(self, id: str) -> tuple[bytes, ...] | None:
        """See port."""
        return await self._read_in(self._contents, lambda reader: reader.content("delivery_content: by id", (id,)))

    async def start_content(self, attempt: int, now: int) -> int:
        """See port."""
        marked: int = await self._writer.submit_alike(write_down, Mark(attempt, now))
        return marked

    def settle(self, settlement: Settlement) -> Awaitable[int]:
        """See port."""
        return self._writer.submit_alike(write_down, settlement)

    async def heartbeat(self, holder: str, now: int, lease: float) -> int:
        """See port. A lease counts from when it is written: another process may have held up the commit."""
        asked = self._clock.monotonic()

        def renew(transaction: Transaction) -> int:
            waited = self._stalls.waited(asked)
            transaction.run("heartbeat: renew", (now + int((waited + lease) * 1000), holder))
            return transaction.changes()

        return await self._write(renew)

    async def rescue(self, now: int, policy: RescuePolicy, told: int | None = None) -> int:
        """See port."""
        self._stalls.looks()
        holders = self._read(lambda reader: reader.run("rescue: holders").fetchall())
        if not holders:
            return 0
        asked = self._clock.monotonic()

        def work(transaction: Transaction) -> Steps[int]:
            self._stalls.waited(asked)
            spare = self._stalls.lately(policy.grace)
            over = now if told is None else told
            return rescue.rescue(transaction, now, over, policy, self._holders.dead, spare_living=spare)

        return await self._write_steps(work)

    async def due_routes(self) -> Sequence[DueRoute]:
        """See port."""
        return self._read(lambda reader: [DueRoute(*row) for row in reader.run("due_routes: lanes")])

    async def expire(self, now: int, limit: int) -> int:
        """See port."""
        if not self._read(lambda reader: reader.one("expire: due", (now, 1))):
            return 0
        return await self._write_steps(lambda transaction: rescue.expire(transaction, now, limit))

    # --- reading -------------------------------------------------------------------------------------------------

    async def get_message(self, account: str, id: str) -> MessageView | None:
        """See port."""
        return self._read(lambda reader: reader.message(account, id))

    async def list_messages(
        self, account: str, where: MessageFilter, limit: int, after: str | None
    ) -> Sequence[MessageView]:
        """See port."""
        now = self._clock.now()
        found = await self._read_in(self._lists, lambda reader: reader.messages(account, where, limit, after, now))
        return [view for _, view in found]

    async def list_events(self, account: str, id: str) -> Sequence[EventView]:
        """See port."""
        return self._read(lambda reader: reader.events(account, id))

    async def get_content(self, account: str, id: str) -> tuple[bytes, ...] | None:
        """See port."""
        return await self._read_in(self._contents, lambda reader: reader.content("get_content: by id", (id, account)))

    # --- changing ------------------------------------------------------------------------------------------------

    async def reschedule(self, account: str, id: str, at: int, content: tuple[bytes, ...], now: int) -> int:
        """See port."""
        size = sum(map(len, content))
        return await self._write(
            lambda transaction: changes.reschedule(transaction, account, id, at, content, now), size
        )

    async def cancel(self, account: str, id: str, now: int) -> int:
        """See port."""

        def work(transaction: Transaction) -> int:
            seq = changes.find(transaction, account, id)
            return 0 if seq is None else changes.cancel(transaction, seq, now)

        return await self._write(work)

    async def cancel_where(self, account: str, where: MessageFilter, now: int, limit: int) -> Sequence[str]:
        """See port."""
        found = await self._read_in(
            self._lists, lambda reader: reader.messages(account, where, limit, None, now, waiting=True)
        )
        ids = {seq: view.id for seq, view in found}
        changed = await self._write_steps(lambda transaction: changes.cancel_all(transaction, list(ids), now))
        return [ids[seq] for seq in changed]

    async def retry(self, account: str, id: str, now: int, due_at: int, expires_at: int) -> int:
        """See port."""
        return await self._write(lambda transaction: changes.retry(transaction, account, id, now, due_at, expires_at))

    async def erase(self, account: str, id: str, now: int) -> bool:
        """See port."""
        return await self._write(lambda transaction: changes.erase(transaction, account, id, now))

    # --- suppressions --------------------------------------------------------------------------------------------

    async def list_suppressions(
        self, account: str, reason: str | None, limit: int, after: str | None
    ) -> Sequence[Suppression]:
        """See port."""
        bindings = {"account": account, "reason": reason, "limit": limit, "after": email_key(after or "")}
        rows = self._read(lambda reader: reader.run("list_suppressions: page", bindings).fetchall())
        return [Suppression(*row) for row in rows]

    async def get_suppressions(self, account: str, email: str) -> Sequence[Suppression]:
        """See port."""
        key = email_key(email)
        rows = self._read(lambda reader: reader.run("get_suppressions: by address", (account, key)).fetchall())
        return [Suppression(*row) for row in rows]

    async def add_suppression(self, account: str, suppression: Suppression) -> bool:
        """See port."""
        row = (
            account,
            email_key(suppression.email),
            suppression.reason,
            suppression.email,
            suppression.origin,
            suppression.created_at,
            suppression.message,
            suppression.detail,
            suppression.category,
        )
        return await self._write(lambda transaction: bool(transaction.run("add_suppression: insert", row).fetchall()))

    async def remove_suppressions(
        self, account: str, email: str, reason: str | None, category: str | None = None
    ) -> int:
        """See port."""
        bindings = {"account": account, "key": email_key(email), "reason": reason, "category": category}
        return await self._write(
            lambda transaction: len(transaction.run("remove_suppressions: delete", bindings).fetchall())
        )

    # --- keys ----------------------------------------------------------------------------------------------------

    async def find_key(self, prefix: str) -> ApiKey | None:
        """See port."""
        row = self._read(lambda reader: reader.one("find_key: by prefix", (prefix,)))
        return key_of(row) if row else None

    async def add_key(self, key: ApiKey, *, only_if_none: bool = False) -> bool:
        """See port."""

        def work(transaction: Transaction) -> bool:
            if only_if_none and transaction.one("add_key: any") is not None:
                return False
            transaction.run("add_key: insert", key_row(key))
            return True

        return await self._write(work)

    async def list_keys(self, account: str | None) -> Sequence[ApiKey]:
        """See port."""
        rows = self._read(lambda reader: reader.run("list_keys: all", {"account": account}).fetchall())
        return [key_of(row) for row in rows]

    async def revoke_key(self, account: str | None, id: str, now: int) -> bool:
        """See port."""
        bindings = {"account": account, "id": id, "now": now}
        return await self._write(lambda transaction: bool(transaction.run("revoke_key: mark", bindings).fetchall()))

    # --- housekeeping --------------------------------------------------------------------------------------------

    async def newest_moment(self) -> int | None:
        """See port."""
        row = self._read(lambda reader: reader.one("newest_moment: line"))
        return row[0] if row else None

    async def last_ping(self) -> int | None:
        """See port."""
        row = self._read(lambda reader: reader.one("last_ping: at"))
        return row[0] if row else None

    async def store_time(self, now: int) -> int:
        """See port."""
        return now

    async def purge_content(self, now: int, older_than: int, limit: int) -> int:
        """See port."""
        return await self._write_steps(lambda transaction: changes.purge_content(transaction, now, older_than, limit))

    async def purge_log(self, now: int, older_than: int, limit: int) -> int:
        """See port."""
        return await self._write_steps(lambda transaction: changes.purge_log(transaction, older_than, limit))

    async def purge_keys(self, now: int, retention: float, limit: int) -> int:
        """See port."""
        closed_before = now - int(retention * 1000)
        while True:
            postponed, deleted = await self._write(
                lambda transaction: changes.purge_keys(transaction, now, closed_before, limit)
            )
            if deleted or postponed < limit:
                return deleted

    async def stats(self, now: int) -> QueueStats:
        """See port."""
        counts = self._read(lambda reader: reader.run("stats: counters").fetchall())
        oldest: dict[int, int] = {}
        for lane in await self.due_routes():
            if lane.due_at <= now:
                oldest[lane.priority] = min(lane.due_at, oldest.get(lane.priority, lane.due_at))
        return QueueStats({State(state): count for state, count in counts}, oldest)
