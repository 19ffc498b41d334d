"""What the store did not take while it was away is told once, in order, whoever asks first when it is back."""

import asyncio
from types import SimpleNamespace
from typing import Any

from service.errors import StorageUnavailable
from service.mail.trouble import OPERATOR, Answer, Standing, Trouble
from service.spool.ledger import StoreLedger
from tests.support.waiting import until

ACCOUNTS = "ABCD"
TROUBLE = Trouble("network", 1, 10**15, "x", probe=True)


class AwayStore:
    """A store that comes back."""

    def __init__(self) -> None:
        self.away = True
        self.broken = ""
        self.told: list[str] = []
        self.standings: dict[str, Standing] = {}

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise StorageUnavailable("away")

    async def record_trouble(self, account: str, trouble: Trouble, event: object) -> bool:
        await self._answer()
        if account == self.broken:
            raise KeyError(account)
        self.told.append(account)
        return True

    async def relay_accounts(self) -> dict[str, Standing]:
        await self._answer()
        return self.standings

    async def ask_login(self, *_: object) -> Answer:
        await self._answer()
        return Answer.WAIT


async def ledger_with_backlog() -> tuple[AwayStore, StoreLedger]:
    store: Any = AwayStore()
    metrics: Any = SimpleNamespace()
    ledger = StoreLedger(store, "p1", metrics)
    for account in ACCOUNTS:
        ledger.record_trouble(account, TROUBLE, None)
    await until(lambda: len(ledger._backlog) == len(ACCOUNTS), 5)
    store.away = False
    return store, ledger


async def test_several_who_ask_at_once_tell_each_of_the_backlog_once() -> None:
    store, ledger = await ledger_with_backlog()
    await asyncio.gather(ledger.refresh(), *(ledger.ask_login(each, "m", "p", 1, 5.0) for each in ACCOUNTS))
    assert store.told == list(ACCOUNTS)
    assert not any(ledger._on_its_way.values())


async def test_what_others_tell_is_heard_afterwards() -> None:
    store, ledger = await ledger_with_backlog()
    await asyncio.gather(ledger.refresh(), ledger.ask_login("A", "m", "p", 1, 5.0))
    paused = Standing()
    paused.record(Trouble(OPERATOR, 5, None, "another process paused it"))
    store.standings = dict.fromkeys(ACCOUNTS, paused)
    await ledger.refresh()
    assert all(ledger.standing(each).find(OPERATOR, "") for each in ACCOUNTS)


async def test_a_fault_of_our_own_does_not_stand_before_what_follows() -> None:
    store, ledger = await ledger_with_backlog()
    store.broken = "B"
    await ledger.refresh()
    assert store.told == ["A", "C", "D"]
    assert not any(ledger._on_its_way.values())
