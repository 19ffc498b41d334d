"""The part of the store in which processes tell each other about relays; accounts.py has what is done."""

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import asdict

from service.mail.trouble import Answer, RelayEvent, Standing, Trouble
from service.store.port import RelayView
from service.store.postgres import accounts
from service.store.postgres.database import Database
from service.store.postgres.lane import Lane
from service.store.postgres.statements import statement


class TellingStore:
    """Rules run in a lane of their own, in the order in which they were asked for."""

    _database: Database
    _telling: Lane

    async def relay_accounts(self) -> Mapping[str, Standing]:
        """See port."""
        rows = await self._database.read(statement("relay_accounts: troubles"), statement("relay_accounts: logins"))
        return accounts.standings_of(accounts.accounts_of(*rows))

    async def ask_login(self, account: str, mark: str, prober: str, now: int, lease: float) -> Answer:
        """See port. Who must wait has written nothing."""
        given = {"accounts": [account]}
        rows = await self._database.read(
            statement("record_trouble: known", given), statement("ask_login: right", given)
        )
        known = accounts.accounts_of(*rows).get(account, accounts.Account(Standing()))
        answer = accounts.answer(known, mark, prober, now)
        if answer is not Answer.GRANTED:
            return answer
        granted: Answer = await self._telling.submit(accounts.ask(account, mark, prober, now, now + int(lease * 1000)))
        return granted

    def prove_login(self, mark: str, prober: str, event: RelayEvent) -> Awaitable[bool]:
        """See port."""
        return self._telling.submit(accounts.prove(mark, prober, event))

    def fail_login(self, trouble: Trouble, prober: str, event: RelayEvent) -> Awaitable[bool]:
        """See port."""
        return self._telling.submit(accounts.record(event.account, trouble, event, prober))

    def release_login(self, account: str, prober: str) -> Awaitable[bool]:
        """See port."""
        return self._telling.submit(accounts.release(account, prober))

    def record_trouble(self, account: str, trouble: Trouble, event: RelayEvent | None) -> Awaitable[bool]:
        """See port."""
        return self._telling.submit(accounts.record(account, trouble, event))

    def forgive_trouble(self, account: str, trouble: Trouble) -> Awaitable[bool]:
        """See port."""
        return self._telling.submit(accounts.forgive(account, trouble))

    def clear_troubles(self, event: RelayEvent) -> Awaitable[int]:
        """See port."""
        return self._telling.submit(accounts.clear(event))

    def add_relay_event(self, event: RelayEvent) -> Awaitable[None]:
        """See port."""
        return self._telling.submit(accounts.add_event(event))

    async def relay_events(self, account: str, limit: int) -> Sequence[RelayEvent]:
        """See port."""
        rows = await self._database.ask("relay_events: newest", {"account": account, "limit": limit})
        return [RelayEvent(*row) for row in rows]

    async def show_relays(self, views: Sequence[RelayView]) -> None:
        """See port."""
        rows = sorted((asdict(view) for view in views), key=lambda row: (row["holder"], row["relay"]))
        if rows:
            await self._database.write(lambda transaction: transaction.ask("show_relays: keep", {"rows": rows}))

    async def relay_views(self, since: int) -> Sequence[RelayView]:
        """See port."""
        return [RelayView(*row) for row in await self._database.ask("relay_views: since", {"since": since})]

    async def purge_relays(self, now: int, events_before: int, limit: int) -> int:
        """See port."""
        return await self._database.write(lambda transaction: accounts.purge(transaction, now, events_before, limit))
