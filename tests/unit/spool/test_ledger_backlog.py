"""What a process tells the store of accounts gets there once and in order, whatever the store does, and what it reads
there never undoes what was told meanwhile.
"""

import asyncio
from typing import Any

import pytest

from service.errors import StorageUnavailable
from service.mail.trouble import OPERATOR, Answer, RelayEvent, Standing, Trouble
from service.spool.ledger import StoreLedger
from service.telemetry import Metrics
from tests.support.waiting import until

ACCOUNTS = "ABCD"
TROUBLE = Trouble("network", 1, 10**15, "x", probe=True, login=True)
PAUSED = Trouble(OPERATOR, 5, None, "another process paused it")
MINUTE = 60_000


class AwayStore:
    """A store that can be away, slow, or wrong about one account; `told` is what it took."""

    def __init__(self) -> None:
        self.away = False
        self.broken = ""
        self.told: list[tuple[str, str]] = []
        self.standings: dict[str, Standing] = {}
        self.reading, self.read = asyncio.Event(), asyncio.Event()  # a read has begun; it may end
        self.telling, self.take = asyncio.Event(), asyncio.Event()  # something is told; it may be taken
        self.read.set()
        self.take.set()

    async def _tell(self, what: str, account: str) -> bool:
        self.telling.set()
        await asyncio.sleep(0)
        if what == "failed":
            await self.take.wait()
        if self.away:
            raise StorageUnavailable("away")
        if account == self.broken:
            raise KeyError(account)
        self.told.append((what, account))
        return True

    async def record_trouble(self, account: str, trouble: Trouble, event: object) -> bool:
        return await self._tell("failed", account)

    async def prove_login(self, mark: str, prober: str, event: RelayEvent) -> bool:
        return await self._tell("proven", event.account)

    async def clear_troubles(self, event: RelayEvent) -> int:
        return await self._tell("cleared", event.account)

    async def add_relay_event(self, event: RelayEvent) -> None:
        await self._tell(event.kind, event.account)

    async def relay_accounts(self) -> dict[str, Standing]:
        if self.away:
            raise StorageUnavailable("away")
        snapshot = dict(self.standings)
        self.reading.set()
        await self.read.wait()
        return snapshot

    async def ask_login(self, account: str, *_: object) -> Answer:
        await self._tell("asked", account)
        return Answer.WAIT


class Setting:
    """A ledger and its store."""

    def __init__(self) -> None:
        self.store, self.metrics = AwayStore(), Metrics()
        store: Any = self.store
        self.ledger = StoreLedger(store, "p1", self.metrics)

    def fail(self, account: str = "A") -> None:
        self.ledger.record_trouble(account, TROUBLE, None)

    def prove(self, account: str = "A") -> None:
        self.ledger.prove_login("m", "", event("opened", account))

    async def miss(self, *accounts: str) -> None:
        """The store is away while trouble of these accounts is told."""
        self.store.away = True
        for account in accounts:
            self.fail(account)
        await until(lambda: all(queue[0].kept for queue in self.ledger._tellings._queues.values()), 5)
        self.store.away = False

    def others_pause(self, account: str = "A") -> None:
        self.store.standings = {account: Standing({(OPERATOR, ""): PAUSED})}


def event(kind: str = "broken", account: str = "A", at: int = 2) -> RelayEvent:
    return RelayEvent(account, "r", at, kind, "why")


@pytest.fixture
async def given() -> Setting:
    return Setting()


async def test_several_who_ask_at_once_tell_each_of_the_backlog_once(given: Setting) -> None:
    await given.miss(*ACCOUNTS)
    await asyncio.gather(given.ledger.refresh(), *(given.ledger.ask_login(each, "m", "p", 1, 5.0) for each in ACCOUNTS))
    assert sorted(told for told in given.store.told if told[0] == "failed") == [("failed", each) for each in ACCOUNTS]
    assert not any(given.ledger._tellings.on_its_way(each) for each in ACCOUNTS)


async def test_the_backlog_of_an_account_is_told_in_order_and_what_is_new_behind_it(given: Setting) -> None:
    await given.miss("A")
    given.store.away = True
    given.prove()
    given.fail()
    with pytest.raises(StorageUnavailable):
        await given.ledger.refresh()
    given.store.away = False
    await given.ledger.refresh()
    assert given.store.told == [("failed", "A"), ("proven", "A"), ("failed", "A")]


async def test_a_success_does_not_overtake_the_failure_before_it_on_its_way_to_the_store(given: Setting) -> None:
    """Or a relay that was mended would stand broken, by the failure that came late."""
    store = given.store
    store.take.clear()
    given.fail()
    await store.telling.wait()
    given.prove()
    store.away = True
    store.take.set()  # the failure finds the store away; the success would find it back
    await until(lambda: given.ledger._tellings._queues["A"][0].kept, 5)
    store.away = False
    await given.ledger.refresh()
    assert store.told == [("failed", "A"), ("proven", "A")]


async def test_one_account_does_not_wait_for_another(given: Setting) -> None:
    given.store.take.clear()
    given.fail("A")
    given.prove("B")
    await until(lambda: given.store.told == [("proven", "B")], 5)
    given.store.take.set()


async def test_who_asks_to_log_in_is_judged_by_all_that_was_told(given: Setting) -> None:
    given.store.take.clear()
    given.fail()
    asking = asyncio.create_task(given.ledger.ask_login("A", "m", "p", 1, 5.0))
    for _ in range(20):  # all that is ready runs
        await asyncio.sleep(0)
    given.store.take.set()
    await asking
    assert given.store.told == [("failed", "A"), ("asked", "A")]


async def test_an_operators_order_keeps_its_place_and_is_refused_at_once_while_the_store_is_away(
    given: Setting,
) -> None:
    given.fail()
    await given.ledger.clear(event("resumed"))
    assert given.store.told == [("failed", "A"), ("cleared", "A")]
    given.store.away = True
    given.fail()
    with pytest.raises(StorageUnavailable):
        await given.ledger.clear(event("resumed"))
    given.store.away = False
    await given.ledger.refresh()
    assert given.store.told[2:] == [("failed", "A")], "what was refused is not done later"


async def test_what_others_tell_is_heard_after_the_backlog(given: Setting) -> None:
    await given.miss("A")
    given.others_pause()
    await given.ledger.refresh()
    assert given.ledger.standing("A").find(OPERATOR, "") == PAUSED


async def test_a_fault_of_our_own_does_not_stand_before_what_follows(given: Setting) -> None:
    await given.miss(*ACCOUNTS)
    given.store.broken = "B"
    await given.ledger.refresh()
    assert given.store.told == [("failed", "A"), ("failed", "C"), ("failed", "D")]
    assert not given.ledger._tellings.on_its_way("B")


async def test_what_was_told_and_taken_during_a_read_is_not_undone_by_it(given: Setting) -> None:
    store = given.store
    store.read.clear()
    refreshing = asyncio.create_task(given.ledger.refresh())
    await store.reading.wait()
    given.fail()
    await until(lambda: store.told == [("failed", "A")], 5)
    await given.ledger._tellings.told("A")
    store.read.set()
    await refreshing
    assert given.ledger.standing("A").find("network", "") == TROUBLE, "what was read is older"


async def test_what_is_still_on_its_way_is_not_undone_by_a_read(given: Setting) -> None:
    store = given.store
    store.read.clear()
    refreshing = asyncio.create_task(given.ledger.refresh())
    await store.reading.wait()
    store.take.clear()
    given.fail()
    given.ledger._tellings.changes.clear()  # that guard alone is another test's
    store.read.set()
    await refreshing
    assert given.ledger.standing("A").find("network", "") == TROUBLE
    store.take.set()


async def test_a_listener_that_came_later_is_told_once_even_if_nothing_is_new(given: Setting) -> None:
    """A pool that took the place of another would else stay as it was made, from what was known before the first look."""
    given.others_pause()
    await given.ledger.refresh()
    heard: list[str] = []
    given.ledger.on_news("A", lambda: heard.append("news"))
    await given.ledger.refresh()
    await given.ledger.refresh()
    assert heard == ["news"]


async def test_a_listener_whose_account_was_busy_is_told_at_the_next_look(given: Setting) -> None:
    store = given.store
    given.others_pause()
    await given.ledger.refresh()
    heard: list[str] = []
    given.ledger.on_news("A", lambda: heard.append("news"))
    store.reading.clear()
    store.read.clear()
    refreshing = asyncio.create_task(given.ledger.refresh())
    await store.reading.wait()
    given.ledger._tellings.tell("A", lambda: store.add_relay_event(event("alert")))
    store.read.set()
    await refreshing
    assert heard == []
    await given.ledger.refresh()
    assert heard == ["news"]


async def test_an_alert_is_written_down_once_a_minute_for_each_relay_and_kind_and_always_counted(
    given: Setting,
) -> None:
    for at in (1, MINUTE, MINUTE + 1):
        given.ledger.alert(event("alert", at=at), "rate")
    given.ledger.alert(event("alert", at=2), "quota")
    given.ledger.alert(event("alert", at=2000 * MINUTE), "content")  # a clock that is far ahead for a moment
    given.ledger.alert(event("alert", at=2), "content")
    await given.ledger._tellings.told("A")
    assert given.store.told == [("alert", "A")] * 5
    assert given.metrics.relay_alerts.labels("r", "rate")._value.get() == 3


async def test_who_was_not_given_the_right_knows_at_once_what_others_told(given: Setting) -> None:
    given.others_pause()
    assert await given.ledger.ask_login("A", "m", "p", 1, 5.0) is Answer.WAIT
    assert given.ledger.standing("A").find(OPERATOR, "") == PAUSED
