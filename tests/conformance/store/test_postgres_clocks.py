"""PostgreSQL: processes on hosts whose clocks are wrong tell each other of relays by the server's clock."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from service.clock import Clock
from service.mail.lifecycle import Event
from service.mail.trouble import Answer, RelayEvent, Trouble
from service.steady import SteadyClock
from service.store.bounds import Bounds
from service.store.postgres import moments
from service.store.postgres import store as stores_module
from service.store.postgres.store import PostgresStore
from service.store.values import Accepted, IdempotencyKey, Limited, RelayView, Want
from tests.support.postgres import shared_server
from tests.support.sending import quota
from tests.support.store_data import ROUTE, accept_of, claim_all, new_message, settlement_of, take_of

DAY = 86_400_000  # ms


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a machine that stands still for a second is not taken for a clock that steps."""
    monkeypatch.setattr(moments, "_DRIFT", 60_000)


@pytest.fixture
def url() -> Iterator[str]:
    made = shared_server().new_database()
    yield made
    shared_server().give_back(made)


class WrongClock(Clock):
    """The system's, wrong by so many milliseconds."""

    ahead = 0

    def now(self) -> int:
        return super().now() + self.ahead


async def test_troubles_are_told_by_the_servers_clock_whatever_the_hosts_clocks_say(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day ahead, a day behind: a pause of five minutes is one of five minutes for both, and the same one."""
    stores, clocks = [], [WrongClock(), WrongClock()]
    clocks[0].ahead, clocks[1].ahead = DAY, -DAY
    for number, clock in enumerate(clocks):
        monkeypatch.setattr(moments, "SYSTEM", clock)
        stores.append(PostgresStore(url, clock, f"host-{number}", Bounds()))
        await stores[-1].open()
    try:
        for teller, reader in ((0, 1), (1, 0)):
            now = clocks[teller].now()
            told = Trouble("rate", now, now + 300_000, f"told by {teller}", length=300.0)
            assert await stores[teller].record_trouble("a", told, None) is True
            assert (await stores[teller].relay_accounts())["a"].troubles == {("rate", ""): told}
            heard = (await stores[reader].relay_accounts())["a"].troubles["rate", ""]
            assert heard.until == pytest.approx(clocks[reader].now() + 300_000, abs=20_000)
            assert await stores[reader].forgive_trouble("a", heard) is True, "it is the same to the millisecond"
        assert await stores[0].ask_login("a", "m", "host-0/r", clocks[0].now(), 60) is Answer.GRANTED
        assert await stores[1].ask_login("a", "m", "host-1/r", clocks[1].now(), 60) is Answer.WAIT
        assert await stores[1].ask_login("a", "m", "host-1/r", clocks[1].now() + 61_000, 60) is Answer.GRANTED
        await stores[1].prove_login("m", "host-1/r", RelayEvent("a", "r", clocks[1].now(), "opened"))
        assert await stores[0].ask_login("a", "m", "host-0/r", clocks[0].now(), 60) is Answer.PROVEN
    finally:
        for store in stores:
            await store.close()


async def test_a_clock_that_steps_between_two_looks_is_noticed_before_a_trouble_is_written(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = WrongClock()
    monkeypatch.setattr(moments, "SYSTEM", clock)
    store = PostgresStore(url, clock, "host", Bounds())
    await store.open()
    try:
        await store.relay_accounts()
        for step in (DAY, -DAY):
            clock.ahead += step
            now = clock.now()
            await store.record_trouble("a", Trouble(f"step {step}", now, now + 300_000, "x", length=300.0), None)
        for trouble in (await store.relay_accounts())["a"].troubles.values():
            assert trouble.until == pytest.approx(clock.now() + 300_000, abs=20_000)
    finally:
        await store.close()


async def test_what_is_young_by_the_servers_clock_is_not_purged_whatever_the_hosts_clock_says(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = WrongClock()
    monkeypatch.setattr(stores_module, "SYSTEM", clock)
    store = PostgresStore(url, clock, "host", Bounds())
    await store.open()
    try:
        accepted = clock.now()
        message = new_message(1, created_at=accepted, due_at=accepted, expires_at=accepted + DAY)
        await store.accept(replace(accept_of(message, key="k"), key_expires_at=accepted + DAY))
        (delivery,) = await claim_all(store, at=accepted)
        await store.settle(settlement_of(delivery, Event.ACCEPTED, at=accepted))
        clock.ahead = 90 * DAY
        now = clock.now()
        assert await store.purge_content(now, now - 7 * DAY, 10) == 0
        assert await store.purge_log(now, now - 30 * DAY, 10) == 0
        assert await store.purge_keys(now, DAY / 1000, 10) == 0
        assert await store.get_content("acme", message.id) is not None
        assert await store.find_answer("acme", IdempotencyKey("k", b"f")) is not None
        clock.ahead = -90 * DAY
        now = clock.now()
        assert await store.purge_content(now, now - 7 * DAY, 10) == 0, "a clock that is behind deletes less"
        clock.ahead = 0
        now = clock.now()
        assert await store.purge_content(now, now + 1, 10) == 1
        assert await store.purge_log(now, now + 1, 10) == 1
    finally:
        await store.close()


async def test_what_was_told_of_relays_is_not_purged_while_it_is_young_by_the_servers_clock(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process does not know of the jump: since then it has heard nothing of the server's clock."""
    clock = WrongClock()
    for module in (stores_module, moments):
        monkeypatch.setattr(module, "SYSTEM", clock)
    store = PostgresStore(url, clock, "host", Bounds())
    await store.open()
    try:
        now = clock.now()
        await store.record_trouble("a", Trouble("rate", now, now + 300_000, "slow down", length=300.0), None)
        await store.add_relay_event(RelayEvent("a", "r", now, "paused", "by hand"))
        await store.show_relays([RelayView("host", "r", now, 1, 0, 7, "250 ok", now, "", 0)])
        clock.ahead = 90 * DAY
        assert await store.purge_relays(clock.now(), clock.now() - 30 * DAY, 10) == 0
        assert len(await store.relay_events("a", 50)) == 1
        assert len(await store.relay_views(0)) == 1
        assert "a" in await store.relay_accounts()
        clock.ahead = -90 * DAY
        assert await store.purge_relays(clock.now(), clock.now() - 30 * DAY, 10) == 0, "one that is behind deletes less"
        clock.ahead = 0
        assert await store.purge_relays(clock.now(), clock.now() + 1, 10) == 1
    finally:
        await store.close()


@pytest.mark.parametrize("wrong", [-3_600_000, 3_600_000])
async def test_quotas_and_limits_count_by_the_servers_clock_whatever_the_hosts_clocks_say(
    wrong: int, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three in a quarter of an hour are three for two hosts whose clocks are an hour apart, and so is a key's rate."""
    stores, clocks = [], [WrongClock(), WrongClock()]
    clocks[1].ahead = wrong
    for number, clock in enumerate(clocks):
        monkeypatch.setattr(moments, "SYSTEM", clock)
        stores.append(PostgresStore(url, clock, f"host-{number}", Bounds()))
        await stores[-1].open()
    try:
        held = quota("3/15m", guard=0, headroom=0)
        claimed: list[int] = []
        for number, (store, clock) in enumerate(zip(stores, clocks, strict=True)):
            now = clock.now()
            mail = [new_message(10 * number + n, created_at=now, due_at=now, expires_at=now + DAY) for n in range(3)]
            await store.accept(replace(accept_of(*mail), now=now))
            want = Want(ROUTE, "r", 3, slots=3, quotas=(held,))
            found = await store.claim(lambda want=want: [want], f"host-{number}", clock.now, 30)
            claimed.append(len(found.deliveries))
            for each in found.deliveries:
                await store.settle(settlement_of(each, Event.ACCEPTED, at=clock.now()))
            (use,) = await store.quota_use([held], clock.now())
            assert (use.used, use.free_at) == (3, pytest.approx(clock.now() + 900_000, abs=30_000))
            limited = accept_of(new_message(100 + number), takes=[take_of("key:k", 3, 900, 3)])
            answer = await store.accept(replace(limited, now=now))
            assert isinstance(answer, Accepted if number == 0 else Limited)
        assert claimed == [3, 0]
    finally:
        for store in stores:
            await store.close()


async def test_a_host_far_ahead_expires_nothing_and_starts_nothing_that_the_server_does_not(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts two years ahead, and goes by the server's clock from the first moment on; what it accepts is due for all."""
    stores, clocks = [], [WrongClock(), WrongClock()]
    clocks[0].ahead = 730 * DAY
    steady = [SteadyClock(clock, 60, 900) for clock in clocks]
    for number, clock in enumerate(steady):
        for module in (moments, stores_module):
            monkeypatch.setattr(module, "SYSTEM", clocks[number])
        stores.append(PostgresStore(url, clock, f"host-{number}", Bounds()))
        await stores[-1].open()
    wrong, right = stores
    try:
        now = steady[1].now()
        assert steady[0].now() == pytest.approx(now, abs=60_000)
        late = new_message(1, created_at=now, due_at=now, expires_at=now + 600_000)
        planned = new_message(2, created_at=now, scheduled_at=now + DAY, due_at=now + DAY, expires_at=now + 5 * DAY)
        await right.accept(replace(accept_of(late, planned), now=now))
        assert await wrong.expire(steady[0].now(), 100) == 0
        want = [Want(ROUTE, "r", 9, slots=9)]
        found = await wrong.claim(lambda: want, "host-0", steady[0].now, 30, steady[0].told)
        assert [each.id for each in found.deliveries] == [late.id], "due and not late; the other is not due"
        clocks[0].ahead += 730 * DAY
        assert steady[0].now() == pytest.approx(now, abs=60_000), "a further jump is doubted"
        await wrong.relay_accounts()
        assert steady[0].told() == pytest.approx(now, abs=60_000), "and known as one when the server is heard next"
        told = steady[0].now()
        await wrong.accept(
            replace(accept_of(new_message(3, created_at=told, due_at=told, expires_at=told + DAY)), now=told)
        )
        found = await right.claim(lambda: want, "host-1", steady[1].now, 30, steady[1].told)
        assert [each.id for each in found.deliveries] == [new_message(3).id]
    finally:
        for store in stores:
            await store.close()
