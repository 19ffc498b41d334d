"""What an operator sees of a queue: lanes with their counts, the first recipients, and open attempts."""

from service.mail.lifecycle import Event, State
from service.store.port import Store
from tests.support.clock import EPOCH
from tests.support.store_data import HOUR, accept_of, claim_all, new_message, settlement_of

NOW = EPOCH + HOUR


async def test_lanes_count_what_waits_what_is_due_and_what_was_in_doubt(store: Store) -> None:
    await store.accept(accept_of(*[new_message(n) for n in range(1, 6)]))
    await store.accept(accept_of(new_message(6, due_at=NOW + HOUR, scheduled_at=NOW + HOUR)))
    await store.accept(accept_of(new_message(7, priority=0, account="other", route="other||")))
    one, two, three = (await claim_all(store, limit=3))[:3]
    await store.settle(settlement_of(one, Event.ACCEPTED))
    await store.settle(settlement_of(two, Event.IN_DOUBT, due_at=NOW + 5))
    waiting = await store.waiting(NOW, 10)
    counted = {
        (lane.route, lane.state): (lane.count, lane.due, lane.in_doubt, lane.perhaps_sent) for lane in waiting.lanes
    }
    assert counted == {
        ("acme||", State.QUEUED): (3, 2, 0, 0),
        ("acme||", State.DEFERRED): (1, 0, 1, 0),
        ("other||", State.QUEUED): (1, 1, 0, 0),
    }
    assert waiting.open_attempts == 1, "of " + three.id
    assert {lane.oldest for lane in waiting.lanes if lane.route == "other||"} == {EPOCH + 7}


async def test_the_first_recipients_are_the_urgent_ones_and_then_those_that_are_due_first(store: Store) -> None:
    for number, priority, due_at in ((1, 2, EPOCH), (2, 1, EPOCH + 50), (3, 1, EPOCH + 20), (4, 0, EPOCH + 90)):
        await store.accept(accept_of(new_message(number, priority=priority, due_at=due_at)))
    first = (await store.waiting(NOW, 3)).first
    assert [(each.priority, each.due_at) for each in first] == [(0, EPOCH + 90), (1, EPOCH + 20), (1, EPOCH + 50)]
    assert (first[0].account, first[0].email, first[0].state) == ("acme", "ada@example.org", State.QUEUED)


async def test_a_store_of_its_own_is_no_copy(store: Store) -> None:
    assert await store.copied_at() is None
    assert not await store.release_copy()


async def test_a_store_whose_processes_go_by_a_given_clock_tells_that_time(store: Store) -> None:
    assert await store.store_time(NOW) == NOW
