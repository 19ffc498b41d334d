"""The part of the store by which processes tell each other about relays; what is done in a transaction is sqlite/accounts'."""

from collections.abc import Awaitable, Mapping, Sequence

from service.clock import Clock
from service.mail.envelope import Offer
from service.mail.trouble import Answer, RelayEvent, Standing, Trouble
from service.store.sqlite import accounts
from service.store.sqlite.files import Holders
from service.store.sqlite.plumbing import Plumbing
from service.store.values import RelayView


class TellingStore(Plumbing):
    """Implements what store/port.Store says of offers, accounts, events and views."""

    _holders: Holders
    _clock: Clock

    async def learn_offer(self, endpoint: str, offer: Offer, now: int) -> None:
        """See port."""
        row = (endpoint, int(offer.smtputf8), offer.max_size, now)
        await self._write(lambda transaction: transaction.run("learn_offer: keep", row).fetchall())

    async def offers(self) -> Mapping[str, Offer]:
        """See port."""
        rows = self._read(lambda reader: reader.run("offers: all").fetchall())
        return {endpoint: Offer(bool(smtputf8), max_size) for endpoint, smtputf8, max_size in rows}

    async def relay_accounts(self) -> Mapping[str, Standing]:
        """See port."""
        standings, now = self._read(lambda reader: accounts.read_all(reader, self._holders.dead)), self._clock.now()
        if too_long := [account for account, standing in standings.items() if standing.cut(now)]:
            await self._write(lambda transaction: accounts.cut(transaction, too_long, now))
        return standings

    async def ask_login(
        self, account: str, mark: str, prober: str, now: int, lease: float, force: float | None = None
    ) -> Answer:
        """See port. Who must wait has written nothing."""
        asked = accounts.Asked(account, mark, prober, now, now + int(lease * 1000), self._holders.dead, force)
        answer = self._read(lambda reader: asked.answer(accounts.read(reader, account)))
        if answer is not Answer.GRANTED:
            return answer
        return await self._write(lambda transaction: accounts.ask(transaction, asked))

    def prove_login(self, mark: str, prober: str, event: RelayEvent) -> Awaitable[bool]:
        """See port."""
        return self._writer.submit(lambda transaction: accounts.prove(transaction, mark, prober, event))

    def fail_login(self, trouble: Trouble, prober: str, event: RelayEvent) -> Awaitable[bool]:
        """See port."""
        return self._writer.submit(lambda transaction: accounts.fail(transaction, trouble, prober, event))

    def release_login(self, account: str, prober: str) -> Awaitable[bool]:
        """See port."""
        return self._writer.submit(lambda transaction: accounts.release(transaction, account, prober))

    def record_trouble(self, account: str, trouble: Trouble, event: RelayEvent | None) -> Awaitable[bool]:
        """See port."""
        return self._writer.submit(lambda transaction: accounts.record(transaction, account, trouble, event))

    def forgive_trouble(self, account: str, trouble: Trouble) -> Awaitable[bool]:
        """See port."""
        return self._writer.submit(lambda transaction: accounts.forgive(transaction, account, trouble))

    def clear_troubles(self, event: RelayEvent) -> Awaitable[int]:
        """See port."""
        return self._writer.submit(lambda transaction: accounts.clear(transaction, event))

    def add_relay_event(self, event: RelayEvent) -> Awaitable[None]:
        """See port."""
        return self._writer.submit(lambda transaction: accounts.add_event(transaction, event))

    async def relay_events(self, account: str, limit: int) -> Sequence[RelayEvent]:
        """See port."""
        rows = self._read(lambda reader: reader.run("relay_events: newest", (account, limit)).fetchall())
        return [RelayEvent(*row) for row in rows]

    async def show_relays(self, views: Sequence[RelayView]) -> None:
        """See port."""
        await self._write(lambda transaction: accounts.show(transaction, views))

    async def relay_views(self, since: int) -> Sequence[RelayView]:
        """See port."""
        rows = self._read(lambda reader: reader.run("relay_views: since", (since,)).fetchall())
        return [RelayView(*row) for row in rows]

    async def purge_relays(self, now: int, events_before: int, limit: int) -> int:
        """See port."""
        return await self._write(lambda transaction: accounts.purge(transaction, now, events_before, limit))
