"""The part of the store in which processes tell each other about relays; accounts.py has what is done.

Whoever tells and asks speaks of moments of his own clock; here they become the server's, and back.
"""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import asdict

from service.mail.trouble import Answer, RelayEvent, Standing, Trouble
from service.store.postgres import accounts
from service.store.postgres.database import Database
from service.store.postgres.lane import Lane
from service.store.postgres.moments import Moments
from service.store.postgres.statements import statement
from service.store.values import RelayView


class TellingStore:
    """Rules run in a lane of their own, in the order in which they were asked for."""

    _database: Database
    _telling: Lane
    _moments: Moments

    async def relay_accounts(self) -> Mapping[str, Standing]:
        """See port."""
        ((server_now,),), *rows = await self._database.read(
            statement("ask_login: clock"), statement("relay_accounts: troubles"), statement("relay_accounts: logins")
        )
        now, standings = self._moments.heard(server_now), accounts.standings_of(accounts.accounts_of(*rows))
        if too_long := [name for name, standing in standings.items() if standing.cut(now)]:
            await asyncio.gather(*(self._telling.submit(accounts.cut(each, now)) for each in too_long))
        return {name: self._moments.here(standing) for name, standing in standings.items()}

    async def ask_login(
        self, account: str, mark: str, prober: str, now: int, lease: float, force: float | None = None
    ) -> Answer:
        """See port. Who must wait has written nothing."""
        given = {"accounts": [account]}
        ((server_now,),), *rows = await self._database.read(
            statement("ask_login: clock"),
            statement("record_trouble: known", given),
            statement("ask_login: right", given),
        )
        self._moments.heard(server_now)
        known = accounts.accounts_of(*rows).get(account, accounts.Account(Standing()))
        answer = accounts.answer(known, mark, prober, self._moments.there(now), force)
        if answer is not Answer.GRANTED:
            return answer
        until = now + int(lease * 1000)
        asking = accounts.ask(self._moments, account, mark, prober, now, until, force)
        granted: Answer = await self._telling.submit(asking)
        return granted

    def prove_login(self, mark: str, prober: str, event: RelayEvent) -> Awaitable[bool]:
        """See port."""
        return self._telling.submit(accounts.prove(self._moments, mark, prober, event))

    def fail_login(self, trouble: Trouble, prober: str, event: RelayEvent) -> Awaitable[bool]:
        """See port."""
        return self._telling.submit(accounts.record(self._moments, event.account, trouble, event, prober))

    def release_login(self, account: str, prober: str) -> Awaitable[bool]:
        """See port."""
        return self._telling.submit(accounts.release(account, prober))

    def record_trouble(self, account: str, trouble: Trouble, event: RelayEvent | None) -> Awaitable[bool]:
        """See port."""
        return self._telling.submit(accounts.record(self._moments, account, trouble, event))

    def forgive_trouble(self, account: str, trouble: Trouble) -> Awaitable[bool]:
        """See port."""
        return self._telling.submit(accounts.forgive(self._moments, account, trouble))

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
