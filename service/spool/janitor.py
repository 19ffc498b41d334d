"""The loops that keep the store tidy and honest: rescue orphans, expire, purge, count.

Every pass works in small batches, so that no transaction grows with the backlog.
"""

import asyncio
from collections.abc import Awaitable, Callable

from service.clock import Clock, rfc3339
from service.errors import PostroomError
from service.mail.lifecycle import PENDING
from service.relay.port import Health, Relays
from service.settings import Settings
from service.spool.health import Readiness
from service.spool.hindered import Hindered
from service.spool.relays import RelayWatch
from service.spool.retention import RetentionClock
from service.store.port import Store
from service.store.values import RescuePolicy
from service.telemetry import Log, Metrics, get_logger

_BATCH = 500
_RESCUE_EVERY, _EXPIRE_EVERY, _COUNT_EVERY, _PURGE_EVERY, _OFFERS_EVERY = 1.0, 1.0, 1.0, 30.0, 2.0  # seconds
_SHOW_EVERY = 2.0  # seconds
_PING_EVERY = 60.0  # seconds; who starts after us sees by it how long nobody was there (service/steady.py)
_WARM_EVERY = 1.0
_GRACE_OF_LEASE, _GRACE_LEAST = 1 / 3, 2.0  # after an outage, for others to renew: a heartbeat's rhythm; seconds
_AFTER_REFUSAL = 5.0  # seconds between two tries of a duty that the store refuses, at most
_AFTER_FAULTS = 60.0  # seconds between two tries of a duty that a fault of ours keeps from being done, at most

log = get_logger()


class Janitor:
    """One for each process; every pass is safe to run in several at once. `holder`: by which name the process claims."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        store: Store,
        relays: Relays,
        readiness: Readiness,
        metrics: Metrics,
        wake: Callable[[], None],
        watch: RelayWatch,
        holder: str = "",
        hindered: Hindered | None = None,
    ) -> None:
        self._settings, self._clock, self._store, self._relays = settings, clock, store, relays
        self._readiness, self._metrics, self._wake, self._watch = readiness, metrics, wake, watch
        self._hindered = hindered or Hindered(clock)
        self._retention, self._looked = RetentionClock(clock), False
        self._doubting = False  # and it was told
        grace = max(settings.lease * _GRACE_OF_LEASE, _GRACE_LEAST)
        self._policy = RescuePolicy(settings.in_doubt_delay, settings.max_in_doubt, settings.max_kills, holder, grace)

    async def run(self) -> None:
        """All passes, each in its own rhythm, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for every, work in (
                (_RESCUE_EVERY, self._rescue),
                (_EXPIRE_EVERY, self._expire),
                (_COUNT_EVERY, self.count),
                (_PURGE_EVERY, self._purge),
                (_PING_EVERY, self._store.ping),
                (_OFFERS_EVERY, self.exchange_offers),
                (_SHOW_EVERY, self._watch.show),
                (_WARM_EVERY, self.keep_warm),
            ):
                group.create_task(self._repeat(every, work))

    async def _repeat(self, every: float, work: Callable[[], Awaitable[None]]) -> None:
        """A fault of ours in one duty ends neither it nor the others: it is told each time, and tried less and less often.
        What the store refuses is tried again soon.
        """
        wait = every
        while True:
            try:
                await work()
                self._hindered.worked(work.__name__)
                wait = every
            except PostroomError as error:
                self._hindered.failed(work.__name__, error)
                wait = min(every, _AFTER_REFUSAL)
            except Exception as error:
                log.critical(Log.LOOP_FAILED, during=work.__name__, exc_info=error)
                wait = min(wait * 2, max(every, _AFTER_FAULTS))
            await asyncio.sleep(wait)

    async def _rescue(self) -> None:
        if rescued := await self._store.rescue(self._clock.now(), self._policy, self._clock.told()):
            self._metrics.rescued.inc(rescued)
            log.warning(Log.RESCUED, attempts=rescued)
            self._wake()

    async def _expire(self) -> None:
        self._tell_doubt(self._clock.now())
        await _drain(lambda: self._store.expire(self._clock.now(), _BATCH))

    def _tell_doubt(self, now: int) -> None:
        """What the wall clock does is told when the doubt begins and when it ends."""
        if bool(self._clock.doubted) != self._doubting:
            self._doubting = not self._doubting
            if self._doubting:
                log.warning(Log.CLOCK_JUMPED, ahead=round(self._clock.doubted), going_by=rfc3339(now))
            else:
                log.warning(Log.CLOCK_BELIEVED, now=rfc3339(now))

    async def count(self) -> None:
        """Refresh the gauges, and what the door needs to know of the queue."""
        stats = await self._store.stats(self._clock.now())
        self._readiness.waiting_recipients = sum(stats.counts.get(state, 0) for state in PENDING)
        for state, count in stats.counts.items():
            self._metrics.queue.labels(state.value).set(count)
        now = self._clock.now()
        for priority in range(3):
            oldest = stats.oldest_due.get(priority)
            age = max(now - oldest, 0) / 1000 if oldest is not None else 0
            self._metrics.queue_age.labels(str(priority)).set(age)
        for name in self._relays.names():
            status = self._relays.get(name).status(now)
            self._metrics.relay_up.labels(name).set(status.health is Health.OPEN)
            self._metrics.relay_connections.labels(name).set(status.connections)

    async def exchange_offers(self) -> None:
        """Tell the store what our sessions learnt of relays, and the relays what other processes' sessions did."""
        known = await self._store.offers()
        for relay in [self._relays.get(name) for name in self._relays.names()]:
            if (offer := known.get(relay.endpoint)) is not None:
                relay.told(offer)
            if relay.offer is not None and relay.offer != offer:
                await self._store.learn_offer(relay.endpoint, relay.offer, self._clock.now())

    async def keep_warm(self) -> None:
        """Let the relays open the sessions that are to be open without mail."""
        if self._settings.role != "api" and not self._readiness.draining and not self._readiness.held:
            for name in self._relays.names():
                self._relays.get(name).keep_warm()

    async def _purge(self) -> None:
        now, settings = await self._time_to_purge_by(), self._settings
        purged = 0
        for work in (
            lambda: self._store.purge_content(now, now - int(settings.content_retention * 1000), _BATCH),
            lambda: self._store.purge_log(now, now - int(settings.log_retention * 1000), _BATCH),
            lambda: self._store.purge_keys(now, settings.idempotency_retention, _BATCH),
            lambda: self._store.purge_relays(now, now - int(settings.log_retention * 1000), _BATCH),
        ):
            purged += await _drain(work)
        if purged:
            log.info(Log.PURGED, rows=purged)

    async def _time_to_purge_by(self) -> int:
        """The time, unless the clock is far ahead of what it can be; that is told once, as long as it lasts."""
        newest = None if self._looked else await self._store.newest_moment()
        self._looked, before = True, self._retention.doubted
        now = self._retention.now(newest)
        if self._retention.doubted and not before:
            log.warning(Log.CLOCK_DOUBTED, ahead=round(self._retention.doubted), purging_by=rfc3339(now))
        return now


async def _drain(work: Callable[[], Awaitable[int]]) -> int:
    """Repeat a batch until one comes back not full; how many rows it was in all."""
    total = 0
    while True:
        done = await work()
        total += done
        if done < _BATCH:
            return total
