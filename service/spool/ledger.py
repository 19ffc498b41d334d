"""The ledger that processes on one store share: implements relay/port.Ledger over the Store.

What this process does counts here at once and goes to the store behind it (spool/telling); what the store says is read
once a second and taken over, account by account, as soon as nothing of our own is on its way. Rules are mail/trouble's, in
the store too: it decides who may log in, and which of two tellers was first.
"""

import asyncio
import contextlib
from collections.abc import Awaitable

from service.errors import PostroomError
from service.mail.trouble import Answer, RelayEvent, Standing, Trouble
from service.relay.ledger import News, ProcessLedger
from service.spool.telling import Tellings
from service.store.port import Store
from service.telemetry import Metrics

# No settings: what is promised of news, what follows from PROVEN_FOR, and how much of a log people can read.
_LOOK_EVERY = 1.0  # seconds
_PROOF_KEPT_EVERY = 20_000  # ms: a third of what a proof is good for, so that few logins write
_ALERT_KEPT_EVERY = 60_000  # ms; of each relay and kind


class StoreLedger(ProcessLedger):
    """See the module. `run` until cancelled, `close` before the store."""

    def __init__(self, store: Store, holder: str, metrics: Metrics) -> None:
        super().__init__()
        self.holder = holder
        self._store, self._metrics = store, metrics
        self._tellings = Tellings()
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
        await self._tellings.all_told()
        before = self._tellings.changes.copy()
        found = await self._store.relay_accounts()
        new, self._new = self._new, set()
        for account in {*self._standings, *found}:
            if self._tellings.on_its_way(account) or self._tellings.changes[account] != before[account]:
                self._new |= {account} & new
                continue
            standing = found.get(account) or Standing()
            if standing != self.standing(account):
                self._standings[account] = standing
                self._tell(account)
            elif account in new:
                self._tell(account)

    # --- what we tell --------------------------------------------------------------------------------------------

    async def ask_login(
        self, account: str, mark: str, prober: str, now: int, lease: float, force: float | None = None
    ) -> Answer:
        """See port. The store decides by all that we know."""
        with self._tellings.asking(account):
            await self._tellings.told(account)
            answer = await self._store.ask_login(account, mark, prober, now, lease, force)
            if answer is Answer.GRANTED:
                self.standing(account).grant(mark, prober, now + int(lease * 1000))
        if answer is not Answer.GRANTED:
            await self.refresh()  # others know more than we do
        return answer

    def prove_login(self, mark: str, prober: str, event: RelayEvent) -> None:
        """See port. A proof that tells nothing new is not written."""
        standing = self.standing(event.account)
        known = standing.login.mark == mark and event.at < standing.login.proven_at + _PROOF_KEPT_EVERY
        if known and not prober and not any(each.login or each.probe for each in standing.of(mark)):
            return
        self._tellings.tell(event.account, lambda: self._store.prove_login(mark, prober, event))
        super().prove_login(mark, prober, event)

    def fail_login(self, trouble: Trouble, prober: str, event: RelayEvent) -> None:
        """See port."""
        self._tellings.tell(event.account, lambda: self._store.fail_login(trouble, prober, event))
        super().fail_login(trouble, prober, event)

    def release_login(self, account: str, prober: str) -> None:
        """See port."""
        if prober:
            self._tellings.tell(account, lambda: self._store.release_login(account, prober))
            super().release_login(account, prober)

    def record_trouble(self, account: str, trouble: Trouble, event: RelayEvent | None) -> None:
        """See port."""
        self._tellings.tell(account, lambda: self._store.record_trouble(account, trouble, event))
        super().record_trouble(account, trouble, event)

    def forgive_trouble(self, account: str, trouble: Trouble) -> None:
        """See port."""
        self._tellings.tell(account, lambda: self._store.forgive_trouble(account, trouble))
        super().forgive_trouble(account, trouble)

    def hold(self, trouble: Trouble, event: RelayEvent) -> Awaitable[None]:
        """See port."""
        account = event.account
        durable = self._tellings.order(account, lambda: self._store.record_trouble(account, trouble, event))
        self.standing(account).record(trouble)
        self._tell(account)
        return durable

    def clear(self, event: RelayEvent) -> Awaitable[None]:
        """See port."""
        durable = self._tellings.order(event.account, lambda: self._store.clear_troubles(event))
        self.standing(event.account).clear()
        self._tell(event.account)
        return durable

    def alert(self, event: RelayEvent, kind: str) -> None:
        """See port."""
        self._metrics.relay_alerts.labels(event.relay, kind).inc()
        last = self._alerted.get((event.relay, kind))
        if last is None or not last <= event.at < last + _ALERT_KEPT_EVERY:  # before it: the clock was ahead then
            self._alerted[event.relay, kind] = event.at
            self._tellings.tell(event.account, lambda: self._store.add_relay_event(event))

    async def close(self, grace: float) -> None:
        """Let what was told reach the store, for `grace` seconds at most."""
        with contextlib.suppress(TimeoutError, PostroomError):
            async with asyncio.timeout(grace):
                await self._tellings.all_told()
