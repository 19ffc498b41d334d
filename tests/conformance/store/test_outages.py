"""After storage was away for longer than a lease: who lives and works on what it holds loses nothing of it to a rescuer."""

from collections.abc import Callable
from typing import Any

import pytest

from service.mail.lifecycle import Event
from service.store.port import Store
from service.store.values import RescuePolicy
from tests.support.clock import EPOCH, SteppedClock
from tests.support.store_data import HOUR, accept_of, claim_all, new_message, settlement_of

LATER = EPOCH + 2 * HOUR


def policy(holder: str, grace: float = 0.0) -> RescuePolicy:
    return RescuePolicy(in_doubt_delay=900, max_in_doubt=2, max_kills=3, holder=holder, grace=grace)


async def test_a_process_takes_nothing_that_it_holds_itself_for_an_orphan(store: Store) -> None:
    await store.accept(accept_of(new_message(1)))
    (delivery,) = await claim_all(store, holder="me", lease=60)
    assert await store.rescue(LATER, policy("me")) == 0
    assert await store.settle(settlement_of(delivery, Event.ACCEPTED, at=LATER)) == 1


async def test_another_takes_it_once_its_lease_is_over(store: Store) -> None:
    await store.accept(accept_of(new_message(1)))
    (delivery,) = await claim_all(store, holder="me", lease=60)
    assert await store.rescue(LATER, policy("other")) == 1
    assert await store.settle(settlement_of(delivery, Event.ACCEPTED, at=LATER)) == 0


@pytest.mark.parametrize("begins", ["before the outage", "after the outage"])
async def test_after_an_outage_others_get_time_to_renew(
    store: Store, clock: SteppedClock, open_another: Callable[..., Any], begins: str
) -> None:
    other = await open_another("other")
    clock.step(1000)
    await store.accept(accept_of(new_message(1)))
    await claim_all(store, holder="me", lease=60)
    if begins == "before the outage":
        other._stalls.recovered()
    else:
        other = await open_another("new")
    rescued = []
    for _ in range(15):
        rescued.append(await other.rescue(LATER, policy("whoever", grace=10)))
        clock.step(1)
    assert rescued[:10] == [0] * 10
    assert sum(rescued) == 1
