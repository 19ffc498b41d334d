"""A fault of ours with one thing fails that thing alone: not its group, not who comes after it, not the connection.

The faults here are values that no code makes; what they stand for is the mistake that nobody has found yet.
"""

import asyncio
from typing import Any

import pytest

from service.mail.lifecycle import Event, State
from service.store.orphans import Orphan
from service.store.port import Store
from service.store.postgres import rescue as postgres_rescue
from service.store.postgres import settle as postgres_settle
from service.store.sqlite import rescue as sqlite_rescue
from service.store.sqlite import settle as sqlite_settle
from service.store.values import RescuePolicy, Settlement
from tests.support.clock import EPOCH
from tests.support.store_data import HOUR, accept_of, claim_all, new_message, settlement_of, states

POLICY = RescuePolicy(in_doubt_delay=900, max_in_doubt=2, max_kills=10)
TOO_LARGE = 2**70  # for any column, and for the protocol of PostgreSQL


async def claimed(store: Store, count: int) -> list[Settlement]:
    """So many deliveries under way, and how they are to end."""
    await store.accept(accept_of(*(new_message(n) for n in range(1, count + 1))))
    return [settlement_of(each, Event.ACCEPTED) for each in await claim_all(store)]


async def test_a_result_that_can_not_be_written_fails_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    settlements = await claimed(store, 5)
    for module in (sqlite_settle, postgres_settle):
        real = module.event_data

        def faulty(settlement: Settlement, *given: Any, real: Any = real) -> Any:
            if settlement.attempt == settlements[2].attempt:
                raise ValueError("a fault of ours")
            return real(settlement, *given)

        monkeypatch.setattr(module, "event_data", faulty)
    answers = await asyncio.gather(*map(store.settle, settlements), return_exceptions=True)
    assert [answer for answer in answers if not isinstance(answer, ValueError)] == [1, 1, 1, 1]
    assert isinstance(answers[2], ValueError)
    assert store.healthy()
    assert await states(store, settlements[2].id) == [State.SENDING]
    monkeypatch.undo()
    assert await store.settle(settlements[2]) == 1, "once the fault is mended"


async def test_a_value_that_can_not_be_sent_fails_alone_and_the_connection_stays(store: Store) -> None:
    settlements = await claimed(store, 3)
    faulty = store.start_content(settlements[1].attempt, TOO_LARGE)
    answers = await asyncio.gather(
        store.settle(settlements[0]), faulty, store.settle(settlements[2]), return_exceptions=True
    )
    assert (answers[0], answers[2]) == (1, 1)
    assert isinstance(answers[1], OverflowError)
    assert store.healthy()
    assert await store.settle(settlements[1]) == 1
    assert (await store.stats(EPOCH)).counts[State.SENT] == 3


async def test_an_orphan_that_can_not_be_closed_keeps_no_other_from_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    settlements = await claimed(store, 5)
    for module in (sqlite_rescue, postgres_rescue):
        real = module.settle_orphan

        def faulty(orphan: Orphan, *given: Any, real: Any = real) -> Settlement:
            if orphan.attempt == settlements[2].attempt:
                raise ValueError("a fault of ours")
            return real(orphan, *given)  # type: ignore[no-any-return]

        monkeypatch.setattr(module, "settle_orphan", faulty)
    late = EPOCH + 2 * HOUR
    assert await store.rescue(late, POLICY) == 4
    assert await store.rescue(late, POLICY) == 0
    assert (await store.stats(EPOCH)).counts == {State.QUEUED: 0, State.SENDING: 1, State.DEFERRED: 4}
    monkeypatch.undo()
    assert await store.rescue(late, POLICY) == 1, "once the fault is mended"
