"""Claims while the wall clock is doubted: what is late by it alone is neither sent nor ended, and everything else goes on."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from service.mail.lifecycle import Event, State
from service.store.port import Store
from service.store.values import Delivery, RescuePolicy, Want
from tests.support.clock import EPOCH
from tests.support.store_data import HOUR, ROUTE, accept_of, new_message, settlement_of, states

DAY = 24 * HOUR  # ms
NOW = EPOCH + 60_000  # what is believed
TOLD = NOW + 2 * 365 * DAY
HALF_A_MINUTE = 30_000  # ms


async def claim(store: Store, now: int, told: int, limit: int = 100) -> Sequence[Delivery]:
    """What is handed out when `now` is believed and `told` is told."""
    want = Want(ROUTE, "r", limit, slots=limit)
    return (await store.claim(lambda: [want], "me", lambda: now, 60, lambda: told)).deliveries


async def test_what_is_late_by_a_doubted_clock_alone_is_neither_sent_nor_ended(store: Store) -> None:
    code = new_message(1, expires_at=EPOCH + 600_000)
    await store.accept(accept_of(code))
    assert await claim(store, NOW, TOLD) == []
    assert await store.expire(NOW, 100) == 0
    assert await states(store, code.id) == [State.QUEUED]
    assert [each.type for each in await store.list_events("acme", code.id)] == ["accepted"]


async def test_once_the_clock_is_set_back_it_is_sent_within_half_a_minute(store: Store) -> None:
    code = new_message(1, expires_at=EPOCH + 600_000)
    await store.accept(accept_of(code))
    assert await claim(store, NOW, TOLD) == []
    assert await claim(store, NOW + HALF_A_MINUTE - 1, NOW + HALF_A_MINUTE - 1) == []
    later = NOW + HALF_A_MINUTE
    assert [each.id for each in await claim(store, later, later)] == [code.id]


async def test_once_the_clock_is_believed_it_ends_unsent(store: Store) -> None:
    code = new_message(1, expires_at=EPOCH + 600_000)
    await store.accept(accept_of(code))
    assert await claim(store, NOW, TOLD) == []
    assert await claim(store, TOLD, TOLD) == []
    await store.expire(TOLD, 100)
    assert await states(store, code.id) == [State.EXPIRED]


async def test_what_is_late_by_what_is_believed_too_ends_meanwhile(store: Store) -> None:
    late, later = new_message(1, expires_at=NOW), new_message(2, expires_at=NOW - 1)
    await store.accept(accept_of(late))
    assert await claim(store, NOW, TOLD) == []
    assert await states(store, late.id) == [State.EXPIRED]
    await store.accept(accept_of(later))
    assert await store.expire(NOW, 100) == 1
    assert await states(store, later.id) == [State.EXPIRED]


async def test_scheduled_mail_does_not_start_by_a_doubted_clock(store: Store) -> None:
    at = NOW + 90 * DAY
    await store.accept(accept_of(new_message(1, scheduled_at=at, due_at=at, expires_at=at + 4 * DAY)))
    assert await claim(store, NOW, TOLD) == []
    assert len(await claim(store, at, at)) == 1


async def test_mail_behind_hundreds_that_are_held_goes_out(store: Store) -> None:
    """Put off they stand in nobody's way; what is accepted meanwhile has its ttl by the clock that is told."""
    held = [new_message(number, expires_at=EPOCH + 600_000) for number in range(1, 451)]
    long = new_message(1000, to=("a@example.org", "b@example.org"), expires_at=TOLD + 4 * DAY)
    new = new_message(1001, created_at=TOLD, due_at=NOW, expires_at=TOLD + 600_000)
    await store.accept(accept_of(*held))
    await store.accept(accept_of(long, new))
    found: list[str] = []
    for _ in range(4):  # a claim puts off as many as it may and no more
        found += [each.id for each in await claim(store, NOW, TOLD)]
    assert found == [long.id, new.id]
    assert await claim(store, NOW + HALF_A_MINUTE - 1, TOLD) == []
    assert {(await states(store, each.id))[0] for each in held[::50]} == {State.QUEUED}


async def test_of_a_message_only_those_who_are_late_are_held(store: Store) -> None:
    """A recipient that is sent to again has a ttl of its own."""
    message = new_message(1, to=("a@example.org", "b@example.org"), expires_at=EPOCH + 600_000)
    await store.accept(accept_of(message))
    (delivery,) = await claim(store, NOW, NOW)
    deferred = settlement_of(delivery, Event.DEFER, at=NOW, due_at=NOW)
    bounced = settlement_of(delivery, Event.REFUSED, at=NOW)
    await store.settle(replace(deferred, recipients=[deferred.recipients[0], bounced.recipients[1]]))
    assert await store.retry("acme", message.id, NOW, NOW, TOLD + DAY)
    (delivery,) = await claim(store, NOW, TOLD)
    assert [each.email for each in delivery.recipients] == ["b@example.org"]
    assert await states(store, message.id) == [State.DEFERRED, State.SENDING]


async def test_who_believes_the_clock_takes_no_mail_from_who_doubts_it(
    store: Store, open_another: Callable[..., Any]
) -> None:
    """Two processes on one host: their leases count by the clock that both read, and what follows by what each believes."""
    other, policy = await open_another(), RescuePolicy(900, 2, 3)
    await store.accept(accept_of(new_message(1, expires_at=TOLD + DAY)))
    assert len(await claim(store, NOW, TOLD)) == 1
    assert await other.rescue(TOLD + 59_000, policy, TOLD + 59_000) == 0
    assert await store.heartbeat("me", TOLD + 59_000, 60) == 1
    assert await other.rescue(NOW + 61_000, policy, TOLD + 61_000) == 0
    assert await other.rescue(NOW + 120_000, policy, TOLD + 120_000) == 1
    (route,) = await store.due_routes()
    assert route.due_at == NOW + 120_000 + 900_000
