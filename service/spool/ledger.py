"""The ledger that processes on one store share: implements relay/port.Ledger over the Store.

What this process does counts here at once and goes to the store behind it; what the store says is read once a second and
taken over, account by account, as soon as nothing of our own is on its way. Rules are mail/trouble's, in the store too:
it decides who may log in, and which of two tellers was first.
"""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Any

from service.errors import PostroomError
from service.mail.trouble import Answer, RelayEvent, Standing, Trouble
from service.relay.ledger import News, ProcessLedger
from service.store.port import Store
from service.telemetry import Log, Metrics, get_logger

log = get_logger()

_LOOK_EVERY = 1.0  # seconds
_PROOF_KEPT_EVERY = 20_000  # ms: a third of what a proof is good for, so that few logins write
_ALERT_KEPT_EVERY = 60_000  # ms; of each relay and kind

Work = Callable[[], Awaitable[Any]]


class StoreLedger(ProcessLedger):
    """See the module. `run` until cancelled, `close` before the store."""

    def __init__(self, store: Store, holder: str, metrics: Metrics) -> None:
        super().__init__()
        self.holder = holder
        self._store, self._metrics = store, metrics
        self._on_its_way: Counter[str] = Counter()  # by account
        self._changes: Counter[str] = Counter()  # by account: ours, since the start
        self._backlog: deque[tuple[str, Work]] = deque()  # what the store did not take while it was away, in order
        self._catching_up = asyncio.Lock()  # each of the backlog is told once, by one who asks
        self._tasks: set[asyncio.Future[None]] = set()
        self._new: set[str] = set()  # accounts with a listener who was told nothing yet
        self._alerted: dict[tuple[str, str], int] = {}  # ms, by relay and kind

    def on_news(self, account: str, callback: News) -> None:
        """See port."""
        super().on_news(account, callback)
        self._new.add(account)

    # --- what others tell ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look once a second, for ever."""
        while True:
            with contextlib.suppress(PostroomError):  # whoever sends or accepts says aloud that the store is away
                await self.refresh()
            await asyncio.sleep(_LOOK_EVERY)

    async def refresh(self) -> None:
        """Take over what the store says. Raises StorageUnavailable."""
        await self._catch_up()
        before = self._changes.copy()
        found = await self._store.relay_accounts()
        new, self._new = self._new, set()
        for account in {*self._standings, *found}:
            if self._on_its_way[account] or self._changes[account] != before[account]:
                self._new |= {account} & new
                continue
            standing = found.get(account) or Standing()
            if standing != self.standing(account):
                self._standings[account] = standing
                self._tell(account)
            elif account in new:
                self._tell(account)

    async def _catch_up(self) -> None:
        async with self._catching_up:
            while self._backlog:
                account, work = self._backlog[0]
                try:
                    await work()
                except PostroomError:
                    raise  # the store is away still
                except Exception as error:  # our own fault must not stand before all that follows
                    log.critical(Log.LOOP_FAILED, during="ledger", exc_info=error)
                self._backlog.popleft()
                self._arrived(account)

    # --- what we tell --------------------------------------------------------------------------------------------

    async def ask_login(self, account: str, mark: str, prober: str, now: int, lease: float) -> Answer:
        """See port."""
        self._leaves(account)
        try:
            answer = await self._store.ask_login(account, mark, prober, now, lease)
            if answer is Answer.GRANTED:
                self.standing(account).grant(mark, prober, now + int(lease * 1000))
        finally:
            self._arrived(account)
        if answer is not Answer.GRANTED:
            await self.refresh()  # others know more than we do
        return answer

    def prove_login(self, mark: str, prober: str, event: RelayEvent) -> None:
        """See port. A proof that tells nothing new is not written."""
        standing = self.standing(event.account)
        known = standing.login.mark == mark and event.at < standing.login.proven_at + _PROOF_KEPT_EVERY
        if known and not prober and not any(each.login or each.probe for each in standing.of(mark)):
            return
        self._send(event.account, lambda: self._store.prove_login(mark, prober, event))
        super().prove_login(mark, prober, event)

    def fail_login(self, trouble: Trouble, prober: str, event: RelayEvent) -> None:
        """See port."""
        self._send(event.account, lambda: self._store.fail_login(trouble, prober, event))
        super().fail_login(trouble, prober, event)

    def release_login(self, account: str, prober: str) -> None:
        """See port."""
        if prober:
            self._send(account, lambda: self._store.release_login(account, prober))
            super().release_login(account, prober)

    def record_trouble(self, account: str, trouble: Trouble, event: RelayEvent | None) -> None:
        """See port."""
        self._send(account, lambda: self._store.record_trouble(account, trouble, event))
        super().record_trouble(account, trouble, event)

    def forgive_trouble(self, account: str, trouble: Trouble) -> None:
        """See port."""
        self._send(account, lambda: self._store.forgive_trouble(account, trouble))
        super().forgive_trouble(account, trouble)

    def hold(self, trouble: Trouble, event: RelayEvent) -> Awaitable[None]:
        """See port."""
        account = event.account
        durable = self._at_once(account, self._store.record_trouble(account, trouble, event))
        self.standing(account).record(trouble)
        self._tell(account)
        return durable

    def clear(self, event: RelayEvent) -> Awaitable[None]:
        """See port."""
        durable = self._at_once(event.account, self._store.clear_troubles(event))
        self.standing(event.account).clear()
        self._tell(event.account)
        return durable

    def alert(self, event: RelayEvent, kind: str) -> None:
        """See port."""
        self._metrics.relay_alerts.labels(event.relay, kind).inc()
        last = self._alerted.get((event.relay, kind))
        if last is None or event.at >= last + _ALERT_KEPT_EVERY:
            self._alerted[event.relay, kind] = event.at
            self._send(event.account, lambda: self._store.add_relay_event(event))

    # --- on its way ----------------------------------------------------------------------------------------------

    def _leaves(self, account: str) -> None:
        self._on_its_way[account] += 1
        self._changes[account] += 1

    def _arrived(self, account: str) -> None:
        self._on_its_way[account] -= 1

    def _send(self, account: str, work: Work) -> None:
        """Queue it in the store now; what the store can't take now is kept, and what follows keeps behind it."""
        self._leaves(account)
        if self._backlog:
            self._backlog.append((account, work))
        else:
            self._keep(self._sent(account, work, work()))

    async def _sent(self, account: str, work: Work, queued: Awaitable[Any]) -> None:
        try:
            await queued
        except PostroomError as error:
            log.warning(Log.STORE_FAILED, during="ledger", detail=error.detail)
            self._backlog.append((account, work))
        else:
            self._arrived(account)

    def _at_once(self, account: str, queued: Awaitable[Any]) -> Awaitable[None]:
        """Whoever awaits it is told of a failure; then the store's word counts."""

        async def wait() -> None:
            try:
                await queued
            finally:
                self._arrived(account)

        self._leaves(account)
        return self._keep(wait())

    def _keep(self, work: Any) -> "asyncio.Future[None]":
        task: asyncio.Future[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self, grace: float) -> None:
        """Let what was told reach the store, for `grace` seconds at most."""
        with contextlib.suppress(TimeoutError, PostroomError):
            async with asyncio.timeout(grace):
                while self._tasks:
                    await asyncio.gather(*self._tasks, return_exceptions=True)
                await self._catch_up()
