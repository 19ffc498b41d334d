"""A message that a relay can't carry goes by another route from the settlement on, for every process."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from service.mail.lifecycle import Event
from service.store.port import Store
from tests.support.clock import EPOCH
from tests.support.store_data import HOUR, ROUTE, accept_of, claim_all, new_message, settlement_of

OTHER = "acme|~r|"
NOW = EPOCH + HOUR
Opener = Callable[..., Awaitable[Store]]


async def test_what_the_attempt_held_is_found_on_the_new_route_alone(store: Store, open_another: Opener) -> None:
    message = new_message(1, ("a@b.example", "c@b.example"))
    await store.accept(accept_of(message))
    (delivery,) = await claim_all(store)
    settlement = settlement_of(delivery, Event.NOT_STARTED, due_at=NOW)
    assert await store.settle(replace(settlement, route=OTHER)) == 2
    other = await open_another()
    assert [each.route for each in await other.due_routes()] == [OTHER]
    assert await claim_all(other) == []
    (again,) = await claim_all(other, route=OTHER)
    assert (again.route, len(again.recipients), again.recipients[0].attempts) == (OTHER, 2, 0)
    view = await store.get_message("acme", message.id)
    assert view is not None
    assert view.route == OTHER, "what holds it back is asked of this route"


async def test_other_messages_and_other_recipients_stay_on_theirs(store: Store) -> None:
    message = new_message(1, ("a@b.example", "c@b.example"))
    await store.accept(accept_of(message, new_message(2)))
    first, second = await claim_all(store)
    mine, other = settlement_of(first, Event.NOT_STARTED, due_at=NOW).recipients
    left = [mine, replace(other, event=Event.DEFER, due_at=NOW + HOUR, charged=True)]
    await store.settle(replace(settlement_of(first, Event.NOT_STARTED), recipients=left, result="deferred"))
    await store.settle(settlement_of(second, Event.NOT_STARTED, due_at=NOW))
    (again,) = await claim_all(store, limit=1)
    assert (again.id, [each.n for each in again.recipients]) == (message.id, [0])
    await store.settle(replace(settlement_of(again, Event.NOT_STARTED, due_at=NOW), route=OTHER))
    assert [each.id for each in await claim_all(store, route=OTHER)] == [message.id]
    left_behind = await claim_all(store, at=NOW + HOUR)
    assert [(each.id, [r.n for r in each.recipients]) for each in left_behind] == [
        (new_message(2).id, [0]),
        (message.id, [1]),
    ]


async def test_a_lost_lease_moves_nothing(store: Store) -> None:
    await store.accept(accept_of(new_message(1)))
    (delivery,) = await claim_all(store)
    await store.settle(settlement_of(delivery, Event.NOT_STARTED, due_at=NOW))
    late = settlement_of(delivery, Event.NOT_STARTED, due_at=NOW)
    assert await store.settle(replace(late, route=OTHER)) == 0
    assert [each.route for each in await store.due_routes()] == [ROUTE]


async def test_a_retry_goes_by_the_route_that_the_end_left(store: Store) -> None:
    message = new_message(1, route=OTHER)
    await store.accept(accept_of(message))
    (delivery,) = await claim_all(store, route=OTHER)
    await store.settle(replace(settlement_of(delivery, Event.FAULT), route=ROUTE))
    await store.retry("acme", message.id, NOW, NOW, EPOCH + 99 * HOUR)
    assert [each.id for each in await claim_all(store)] == [message.id]
