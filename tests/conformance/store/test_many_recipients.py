"""A message to many, by a relay that takes few at once: what it costs grows with their number, not with its square."""

import json
from collections import Counter as Tally
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.mail.lifecycle import Event, State
from service.store.bounds import Bounds
from service.store.port import Store
from service.store.postgres.session import Session
from service.store.postgres.statements import Statement
from service.store.postgres.store import PostgresStore
from service.store.shown import Suppression
from service.store.sqlite.store import SQLiteStore
from service.store.values import Claimed, Want
from tests.conformance.store.test_costs import Counter, counter
from tests.support.clock import EPOCH, SteppedClock
from tests.support.postgres import shared_server
from tests.support.sending import quota
from tests.support.store_data import HOUR, ROUTE, accept_of, new_message, settlement_of, states

__all__ = ["counter"]
NOW = EPOCH + HOUR
AT_ONCE = 4
OTHER = "acme|~r|"


def crowd(count: int) -> tuple[str, ...]:
    return tuple(f"u{number}@example.org" for number in range(count))


async def claim(store: Store, *, limit: int = 1, route: str = ROUTE, relay: str = "r", **given: Any) -> Claimed:
    want = Want(route, relay, limit, **{"max_recipients": AT_ONCE, **given})
    return await store.claim(lambda: [want], "me", lambda: NOW, 60)


async def send_all(store: Store, **given: Any) -> list[list[int]]:
    """Claim and settle, as long as something is due; who was in each delivery."""
    groups: list[list[int]] = []
    while (found := await claim(store, **given)).deliveries or found.cut:
        for delivery in found.deliveries:
            groups.append([recipient.n for recipient in delivery.recipients])
            await store.settle(settlement_of(delivery, Event.ACCEPTED))
    return groups


async def test_each_recipient_is_handed_out_once_in_deliveries_that_the_relay_takes(store: Store) -> None:
    message = new_message(1, crowd(10))
    await store.accept(accept_of(message))
    assert await send_all(store) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert await states(store, message.id) == [State.SENT] * 10


@pytest.mark.parametrize("quotas", [(), (quota("100/h recipients"),)])
async def test_that_some_are_left_is_told_so_that_they_are_claimed_at_once(
    store: Store, quotas: tuple[Any, ...]
) -> None:
    await store.accept(accept_of(new_message(1, crowd(2 * AT_ONCE))))
    assert (await claim(store, quotas=quotas)).cut
    assert not (await claim(store, quotas=quotas)).cut
    assert (await claim(store, quotas=quotas)).deliveries == []


async def test_several_deliveries_of_one_message_may_be_under_way_at_once(store: Store) -> None:
    message = new_message(1, crowd(10))
    await store.accept(accept_of(message))
    found = [delivery for _ in range(3) for delivery in (await claim(store)).deliveries]
    assert [len(each.recipients) for each in found] == [4, 4, 2]
    for delivery in reversed(found):
        assert await store.settle(settlement_of(delivery, Event.ACCEPTED)) == len(delivery.recipients)
    assert await states(store, message.id) == [State.SENT] * 10


async def test_those_that_can_not_be_sent_any_more_are_passed_over_and_the_others_follow(store: Store) -> None:
    message = new_message(1, crowd(12))
    await store.accept(accept_of(message, new_message(2, ("ada@example.org",))))
    for n in range(7):
        await store.add_suppression("acme", Suppression(f"u{n}@example.org", "manual", "api", NOW, None, ""))
    assert sorted(n for group in await send_all(store) for n in group) == [0, *range(7, 12)]
    assert await states(store, message.id) == [State.SUPPRESSED] * 7 + [State.SENT] * 5


async def test_recipients_that_went_to_another_route_are_left_to_it(store: Store) -> None:
    """Some of a message moved and the rest did not: neither route hands out the other's."""
    message = new_message(1, crowd(6))
    await store.accept(accept_of(message))
    (first,) = (await claim(store)).deliveries
    moved = settlement_of(first, Event.NOT_STARTED, at=EPOCH, due_at=NOW)  # before the others are due
    assert await store.settle(replace(moved, route=OTHER)) == AT_ONCE
    asked = [Want(route, "r", 5, max_recipients=None) for route in (ROUTE, OTHER)]
    found = await store.claim(lambda: asked, "me", lambda: NOW, 60)
    assert [(each.route, [recipient.n for recipient in each.recipients]) for each in found.deliveries] == [
        (ROUTE, [4, 5]),
        (OTHER, [0, 1, 2, 3]),
    ]


async def test_those_that_wait_for_the_next_delivery_go_along_to_another_route(store: Store) -> None:
    """The relay that can't carry the message is asked once, not once for each part."""
    message = new_message(1, crowd(10))
    await store.accept(accept_of(message))
    (first,) = (await claim(store)).deliveries
    await store.settle(replace(settlement_of(first, Event.NOT_STARTED, due_at=NOW), route=OTHER))
    assert (await claim(store)).deliveries == []
    groups = await send_all(store, route=OTHER)
    assert sorted(n for group in groups for n in group) == list(range(10))


async def test_those_that_wait_stay_where_they_are_when_the_others_end(store: Store) -> None:
    message = new_message(1, crowd(6))
    await store.accept(accept_of(message))
    (first,) = (await claim(store)).deliveries
    await store.settle(replace(settlement_of(first, Event.FAULT), route=OTHER))
    (left,) = (await claim(store)).deliveries
    assert [recipient.n for recipient in left.recipients] == [4, 5]


# --- what it costs ----------------------------------------------------------------------------------------------------


def rows_of(monkeypatch: pytest.MonkeyPatch) -> Tally[str]:
    """By name of a statement of PostgreSQL: how many there were, and how many rows they were given and answered."""
    counted = Tally[str]()
    run = Session.run

    async def through(session: Session, statements: Sequence[Statement]) -> Any:
        answers = await run(session, statements)
        for each, rows in zip(statements, answers, strict=True):
            counted[each.name] += 1 + len(rows) + sum(map(rows_in, each.values))
        return answers

    monkeypatch.setattr(Session, "run", through)
    return counted


def rows_in(value: Any) -> int:
    """Of what is bound to a statement: of a list, or of the JSON text that many rows are given as."""
    if isinstance(value, str) and value.startswith("[{"):
        return len(json.loads(value))
    return len(value) if isinstance(value, list) else 0


@pytest.fixture
async def sqlite(counter: Counter, tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    made = SQLiteStore(str(tmp_path / "post.db"), SteppedClock(), "me")
    await made.open()
    yield made
    await made.close()


async def test_sqlite_runs_ten_times_as_many_instructions_for_ten_times_as_many_recipients(
    counter: Counter, sqlite: SQLiteStore
) -> None:
    took = []
    for number, count in enumerate((100, 1000), 1):
        await sqlite.accept(accept_of(new_message(number, crowd(count))))
        took.append(await counter.of(send_all(sqlite)))
    few, many = took
    assert many <= few * 10 * 1.2, took


async def test_postgresql_is_given_and_answers_ten_times_as_many_rows_for_ten_times_as_many_recipients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = shared_server().new_database()
    store = PostgresStore(url, SteppedClock(), "me", Bounds())
    await store.open()
    took = []
    for number, count in enumerate((50, 500), 1):
        await store.accept(accept_of(new_message(number, crowd(count))))
        counted = rows_of(monkeypatch)
        await send_all(store)
        took.append(counted)
        monkeypatch.undo()
    await store.close()
    shared_server().give_back(url)
    few, many = took
    grown = {name: (few[name], rows) for name, rows in many.items() if rows > few[name] * 10 * 1.2 + 20}
    assert not grown
    assert many["claim: recipients"] > 500, "it counts"
