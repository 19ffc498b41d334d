"""The Store on PostgreSQL: lanes of group commits for accepting, sending and news of relays, short reads beside them.

Accepting has a lane of its own, so that a 202 never waits for a quota that another replica's sender holds.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from zlib import crc32

from service.clock import SYSTEM, Clock
from service.errors import ConfigurationError, PostroomError, StorageUnavailable
from service.mail.lifecycle import State
from service.mail.quota import Quota
from service.store.bounds import Bounds
from service.store.counting import commits_of
from service.store.marks import MOVED, moved_sentence
from service.store.migrate import newer_sentence
from service.store.patience import when_there
from service.store.postgres import accept as accepting
from service.store.postgres import accounts, changes, reads, rescue
from service.store.postgres.database import Database
from service.store.postgres.hints import Hints
from service.store.postgres.keeping import Keeping
from service.store.postgres.lane import Lane
from service.store.postgres.limits import states_of
from service.store.postgres.migrations import SILENT_AFTER, migrate_database, newest_step
from service.store.postgres.moments import Moments
from service.store.postgres.restoring import Restoring
from service.store.postgres.sending import Ask, Mark, Sending
from service.store.postgres.statements import Statement, statement
from service.store.postgres.telling import TellingStore
from service.store.postgres.transaction import Transaction
from service.store.quotas import use_of
from service.store.shown import EventView, MessageFilter, MessageView, QueueStats
from service.store.stalls import Stalls
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
from service.telemetry import Log, Metrics, get_logger

log = get_logger()

_SHARDS = 64  # processes beyond so many may wait for each other's counters for the length of a commit
_LANES = 3  # that write counters: accepting, sending, and the rest


class PostgresStore(Keeping, TellingStore, Restoring):
    """Implements store/port.Store.

    Leases count on the server's clock. A clock other than the system's, as tests use, stands in for that one too.
    """

    def __init__(self, url: str, clock: Clock, holder: str, bounds: Bounds, metrics: Metrics | None = None) -> None:
        metrics = metrics or Metrics()
        shard = crc32(holder.encode()) % _SHARDS * _LANES
        self._url, self._clock, self._holder, self._bounds = url, clock, holder, bounds
        self._stalls = Stalls(clock)
        self._database = Database(url, bounds, shard, metrics.storage_failures.inc, self._stalls.recovered)
        self._hints = Hints(self._database, holder)
        self._moments = Moments(clock)
        sending = Sending(self._leased_at, self._moments)
        accepted, sent, told = (commits_of(metrics, lane) for lane in ("accept", "send", "tell"))
        self._accepting = Lane(
            self._database, shard + 1, partial(accepting.accept_all, self._moments), self._queued, accepted
        )
        self._sending = Lane(self._database, shard + 2, sending.perform, self._queued, sent, sending.recover)
        self._telling = Lane(self._database, shard, partial(accounts.tell_all, self._moments), self._queued, told)
        self._lanes = (self._accepting, self._sending, self._telling)
        self._alive: asyncio.Task[None] | None = None
        self._leaving = asyncio.Event()
        self._closing = False

    def _leased_at(self, now: int) -> int | None:
        return None if self._clock.source is SYSTEM else now

    def _queued(self) -> None:
        self._hints.send()

    async def open(self) -> None:
        """See port. Raises also ConfigurationError: a server or schema that does not fit."""
        migrate = partial(migrate_database, self._url, self._bounds.connect_timeout)
        migrated = await when_there(migrate, self._bounds.wait)
        migrated.tell()
        try:
            await self._database.open()
            await self._database.write(self._enter)
            ((at,),) = await self._database.ask("store_time: clock")
            self._moments.heard(int(at))
            self._alive = asyncio.create_task(self._stay_alive())
            for lane in self._lanes:
                await lane.start()
            await self._hints.start()
            self._stalls.recovered()
        except BaseException:
            await self.close()
            raise

    async def _enter(self, transaction: Transaction) -> None:
        """First seen, then let in: who moves the mail away holds this table, and marks before it lets go; who changes the
        schema keeps it from being entered, and looks who is in it.
        """
        await transaction.run(statement("open: schema stays"), self._living(self._holder))
        if moved := await transaction.ask("copied_at: mark", {"number": MOVED}):
            raise ConfigurationError(moved_sentence(moved[0][0]))
        if newer := await transaction.ask("open: newer steps", {"knows": newest_step()}):
            raise ConfigurationError(newer_sentence(newer[0][0]))

    def _living(self, holder: str) -> Statement:
        return statement("open: holder", {"holder": holder, "knows": newest_step()})

    async def _stay_alive(self) -> None:
        """Say for ever that this process lives, whatever it does: one that only accepts has no leases to renew."""
        while not await self._left_within(SILENT_AFTER / 4):
            written = self._database.write(lambda transaction: transaction.run(self._living(self._holder)))
            try:
                await self._database.while_well(written)
            except PostroomError:
                continue
            except Exception as error:  # whatever it was: who ends here is taken for dead while it serves
                log.critical(Log.LOOP_FAILED, during="alive", exc_info=error)

    async def _left_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._leaving.wait(), seconds)
        return self._leaving.is_set()

    async def close(self) -> None:
        """See port."""
        if self._closing:
            return
        self._closing = True
        self._database.hurry()
        await self._hints.close()
        self._leaving.set()
        if self._alive is not None:
            await asyncio.gather(
                self._alive, return_exceptions=True
            )  # what it has begun must not come after we have left
        await asyncio.gather(*(lane.stop() for lane in self._lanes))
        with contextlib.suppress(StorageUnavailable):
            await self._database.write(self._leave)
        await self._database.close()

    async def _leave(self, transaction: Transaction) -> None:
        await transaction.run(statement("close: holder", {"holder": self._holder}))

    async def ping(self) -> None:
        """See port."""
        write = statement("ping: write", {"at": self._clock.now()})
        await self._database.while_well(self._database.write(lambda transaction: transaction.run(write)))

    def healthy(self) -> bool:
        """See port."""
        return self._database.healthy and all(lane.healthy for lane in self._lanes)

    def on_hint(self, callback: Callable[[], None]) -> None:
        """See port."""
        self._hints.listen(callback)

    def groups(self) -> int:
        """Groups committed since the start, of all lanes."""
        return sum(lane.groups for lane in self._lanes)

    def hints_work(self) -> bool:
        """Whether this process hears what others queue; otherwise it finds it by polling."""
        return self._hints.working.is_set()

    async def make_way(self) -> None:
        """See port: here the server has the rows, and nobody waits for this loop."""
        await asyncio.sleep(0)

    # --- accept --------------------------------------------------------------------------------------------------

    async def accept(self, accept: Accept) -> AcceptResult:
        """See port."""
        result: AcceptResult = await self._accepting.submit(accept, sum(message.size for message in accept.messages))
        return result

    async def find_answer(self, account: str, key: IdempotencyKey) -> Replayed | KeyMismatch | None:
        """See port."""
        rows = await self._database.ask("accept: find request", {"account": account, "key": key.key})
        if not rows:
            return None
        ((_, fingerprint, answer),) = rows
        return Replayed(answer) if fingerprint == key.fingerprint else KeyMismatch()

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
        claimed: Claimed = await self._sending.submit(Ask(wants, holder, now, lease, told or now), last=True)
        return claimed

    async def quota_use(self, quotas: Sequence[Quota], now: int) -> Sequence[QuotaUse]:
        """See port."""
        rows = await self._database.ask("accept: find limits", {"buckets": [each.bucket() for each in quotas]})
        states = states_of(rows)
        return [use_of(each, states.get(each.bucket()), now, self._moments.ahead) for each in quotas]

    async def delivery_content(self, id: str) -> tuple[bytes, ...] | None:
        """See port."""
        return await reads.content(self._database, "delivery_content: by id", {"id": id})

    async def start_content(self, attempt: int, now: int) -> int:
        """See port."""
        marked: int = await self._sending.submit(Mark(attempt, now))
        return marked

    def settle(self, settlement: Settlement) -> Awaitable[int]:
        """See port."""
        return self._sending.submit(settlement)

    async def heartbeat(self, holder: str, now: int, lease: float) -> int:
        """See port."""
        given = {"holder": holder, "lease": int(lease * 1000), "leased_at": self._leased_at(now)}

        async def renew(transaction: Transaction) -> int:
            _, renewed = await transaction.commit(self._living(holder), statement("heartbeat: renew", given))
            return len(renewed)

        return await self._database.while_well(self._database.write(renew))

    async def rescue(self, now: int, policy: RescuePolicy, told: int | None = None) -> int:
        """See port. Who looks for the server may take a connect's time longer than others to find it back."""
        grace = max(policy.grace, self._bounds.connect_timeout) if policy.grace else 0.0
        spare, ahead = self._stalls.lately(grace), self._moments.ahead
        leased_at = self._leased_at(now if told is None else told)
        look, total = rescue.Rescue(self._write_queuing, now, leased_at, policy, spare, ahead), 0
        while rescued := await look.run():
            total += rescued
        return total

    async def due_routes(self) -> Sequence[DueRoute]:
        """See port."""
        return [DueRoute(*row) for row in await self._database.ask("due_routes: lanes")]

    async def expire(self, now: int, limit: int) -> int:
        """See port."""
        return await self._database.write(lambda transaction: rescue.expire(transaction, now, limit))

    # --- reading -------------------------------------------------------------------------------------------------

    async def get_message(self, account: str, id: str) -> MessageView | None:
        """See port."""
        return await reads.message(self._database, account, id)

    async def list_messages(
        self, account: str, where: MessageFilter, limit: int, after: str | None
    ) -> Sequence[MessageView]:
        """See port."""
        found = await reads.messages(self._database, account, where, limit, after, self._clock.now())
        return [view for _, view in found]

    async def list_events(self, account: str, id: str) -> Sequence[EventView]:
        """See port."""
        return await reads.events(self._database, account, id)

    async def get_content(self, account: str, id: str) -> tuple[bytes, ...] | None:
        """See port."""
        return await reads.content(self._database, "get_content: by id", {"id": id, "account": account})

    # --- changing ------------------------------------------------------------------------------------------------

    async def _write_queuing(self, work: Callable[[Transaction], Awaitable[int]]) -> int:
        """A write after which something may wait that did not before."""
        queued = False

        async def noted(transaction: Transaction) -> int:
            nonlocal queued
            result = await work(transaction)
            queued = transaction.queued
            return result

        result = await self._database.write(noted)
        if queued:
            self._queued()
        return result

    async def reschedule(self, account: str, id: str, at: int, content: tuple[bytes, ...], now: int) -> int:
        """See port."""
        return await self._write_queuing(
            lambda transaction: changes.reschedule(transaction, account, id, at, content, now)
        )

    async def cancel(self, account: str, id: str, now: int) -> int:
        """See port."""
        return await self._database.write(lambda transaction: changes.cancel(transaction, account, id, now))

    async def cancel_where(self, account: str, where: MessageFilter, now: int, limit: int) -> Sequence[str]:
        """See port."""
        found = await reads.messages(self._database, account, where, limit, None, now, waiting=True)
        seqs = [seq for seq, _ in found]
        changed = await self._database.write(lambda transaction: changes.cancel_all(transaction, seqs, now))
        return [view.id for seq, view in found if seq in changed]

    async def retry(self, account: str, id: str, now: int, due_at: int, expires_at: int) -> int:
        """See port."""
        return await self._write_queuing(
            lambda transaction: changes.retry(transaction, account, id, now, due_at, expires_at)
        )

    async def erase(self, account: str, id: str, now: int) -> bool:
        """See port."""
        return await self._database.write(lambda transaction: changes.erase(transaction, account, id, now))

    # --- housekeeping --------------------------------------------------------------------------------------------

    async def newest_moment(self) -> int | None:
        """See port."""
        rows = await self._database.ask("newest_moment: line")
        return rows[0][0] if rows else None

    async def last_ping(self) -> int | None:
        """See port."""
        rows = await self._database.ask("last_ping: at")
        return rows[0][0] if rows else None

    async def store_time(self, now: int) -> int:
        """See port."""
        if self._leased_at(now) is not None:
            return now
        ((server_now,),) = await self._database.ask("store_time: clock")
        return int(server_now)

    async def _ahead(self, now: int) -> int:
        """By how much a clock that says `now` is ahead of the server's, ms; 0 when it is behind."""
        return max(now - await self.store_time(now), 0)

    async def purge_content(self, now: int, older_than: int, limit: int) -> int:
        """See port."""
        before = older_than - await self._ahead(now)
        return await self._in_parts(
            limit, lambda most, transaction: changes.purge_content(transaction, now, before, most)
        )

    async def purge_log(self, now: int, older_than: int, limit: int) -> int:
        """See port."""
        before = older_than - await self._ahead(now)
        return await self._in_parts(limit, lambda most, transaction: changes.purge_log(transaction, before, most))

    async def purge_relays(self, now: int, events_before: int, limit: int) -> int:
        """See port."""
        ahead = await self._ahead(now)
        return await self._database.write(
            lambda transaction: accounts.purge(transaction, now - ahead, events_before - ahead, limit)
        )

    async def _in_parts(self, limit: int, work: Callable[[int, Transaction], Awaitable[int]]) -> int:
        """At most `limit`, in transactions of as many as `work` takes at once."""
        total = 0
        while total < limit:
            done = await self._database.write(partial(work, limit - total))
            if not done:
                break
            total += done
        return total

    async def purge_keys(self, now: int, retention: float, limit: int) -> int:
        """See port."""
        now -= await self._ahead(now)
        closed_before = now - int(retention * 1000)
        while True:
            postponed, deleted = await self._database.write(
                lambda transaction: changes.purge_keys(transaction, now, closed_before, limit)
            )
            if deleted or postponed < limit:
                return deleted

    async def stats(self, now: int) -> QueueStats:
        """See port."""
        counts, lanes = await self._database.read(statement("stats: counters"), statement("due_routes: lanes"))
        oldest: dict[int, int] = {}
        for lane in (DueRoute(*row) for row in lanes):
            if lane.due_at <= now:
                oldest[lane.priority] = min(lane.due_at, oldest.get(lane.priority, lane.due_at))
        return QueueStats({State(state): count for state, count in counts}, oldest)
