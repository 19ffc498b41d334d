"""What a recipient went through before: charged attempts that ended alike are counted, uncharged ones leave no trace."""

from dataclasses import replace

from service.mail.lifecycle import Event
from service.mail.retry import History
from service.store.port import Store
from tests.support.clock import EPOCH
from tests.support.store_data import HOUR, accept_of, claim_all, new_message, settlement_of


async def attempt(store: Store, hour: int, kind: str, *, charged: bool = True, reconnected: bool = False) -> History:
    """Claim, settle as deferred; what was known before."""
    at = EPOCH + hour * HOUR
    (delivery,) = await claim_all(store, at=at)
    settlement = settlement_of(delivery, Event.DEFER, at=at, due_at=at + 1)
    changed = [replace(each, kind=kind, charged=charged, reconnected=reconnected) for each in settlement.recipients]
    assert await store.settle(replace(settlement, recipients=changed)) == 1
    return delivery.recipients[0].history


async def test_attempts_that_end_alike_are_counted_until_one_ends_otherwise(store: Store) -> None:
    await store.accept(accept_of(new_message(1)))
    assert await attempt(store, 1, "content-temporary") == History()
    assert await attempt(store, 2, "content-temporary") == History("content-temporary", 1)
    assert await attempt(store, 3, "rate", charged=False) == History("content-temporary", 2)
    assert await attempt(store, 4, "content-temporary") == History("content-temporary", 2), (
        "the relay's fault is no break"
    )
    assert await attempt(store, 5, "temporary") == History("content-temporary", 3)
    assert await attempt(store, 6, "content-temporary") == History("temporary", 1)
    assert await attempt(store, 7, "x") == History("content-temporary", 1)


async def test_the_last_free_connection_is_remembered(store: Store) -> None:
    await store.accept(accept_of(new_message(1)))
    await attempt(store, 1, "stale", charged=False, reconnected=True)
    assert (await attempt(store, 2, "stale")).reconnected_at == EPOCH + HOUR
    assert (await attempt(store, 3, "stale", charged=False, reconnected=True)).reconnected_at == EPOCH + HOUR
    assert (await attempt(store, 4, "stale")).reconnected_at == EPOCH + 3 * HOUR


async def test_a_retry_by_hand_begins_anew(store: Store) -> None:
    message = new_message(1)
    await store.accept(accept_of(message))
    await attempt(store, 1, "recipient-flooded", reconnected=True)
    (delivery,) = await claim_all(store, at=EPOCH + 2 * HOUR)
    await store.settle(settlement_of(delivery, Event.REFUSED))
    await store.retry("acme", message.id, EPOCH + 3 * HOUR, EPOCH + 3 * HOUR, EPOCH + 99 * HOUR)
    (delivery,) = await claim_all(store, at=EPOCH + 4 * HOUR)
    assert delivery.recipients[0].history == History()


async def test_the_log_tells_scope_action_and_until_when(store: Store) -> None:
    message = new_message(1)
    await store.accept(accept_of(message))
    (delivery,) = await claim_all(store)
    settlement = settlement_of(
        delivery, Event.DEFER, due_at=EPOCH + 2 * HOUR, scope="relay", action="RATE", relay_until=5
    )
    await store.settle(settlement)
    data = (await store.list_events("acme", message.id))[-1].data
    assert (data["scope"], data["action"], data["relay_paused_until"]) == ("relay", "RATE", 5)
