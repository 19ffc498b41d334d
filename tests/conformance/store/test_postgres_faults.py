"""PostgreSQL: what is wrong with one of those who share a round trip, a commit or a connection is that one's alone."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from service.errors import StorageUnavailable
from service.mail.lifecycle import Event, State
from service.store.bounds import Bounds
from service.store.postgres import lane as lanes
from service.store.postgres import settle as settling
from service.store.postgres.statements import Statement
from service.store.postgres.store import PostgresStore
from service.store.values import Settlement
from tests.conformance.store.test_postgres import Line, line
from tests.support.clock import EPOCH, SteppedClock
from tests.support.postgres import shared_server
from tests.support.store_data import HOUR, accept_of, claim_all, new_message, settlement_of

__all__ = ["line"]
LOCK_TIMEOUT = 0.5  # seconds


@pytest.fixture
def url() -> Iterator[str]:
    made = shared_server().new_database()
    yield made
    shared_server().give_back(made)


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    made = PostgresStore(url, SteppedClock(), "me", Bounds(lock_timeout=LOCK_TIMEOUT))
    await made.open()
    yield made
    await made.close()


async def test_a_read_whose_value_can_not_be_sent_fails_alone(store: PostgresStore) -> None:
    good, bad = Statement("good", "SELECT 1", ()), Statement("bad", "SELECT $1::bigint", (2**70,))
    asked = [store._database.read(bad if number % 5 == 0 else good) for number in range(20)]
    async with asyncio.timeout(10):
        answers = await asyncio.gather(*asked, return_exceptions=True)
    failed = [number for number, answer in enumerate(answers) if isinstance(answer, OverflowError)]
    assert failed == [0, 5, 10, 15]
    assert answers[1:5] == [[[(1,)]]] * 4


async def test_a_claim_without_an_answer_that_can_not_be_given_back_keeps_nothing_else_waiting(
    store: PostgresStore, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.accept(accept_of(*(new_message(n) for n in (1, 2, 3))))
    real = settling.event_data

    def faulty(settlement: Settlement, *given: Any) -> Any:
        if settlement.id == new_message(2).id:
            raise ValueError("a fault of ours")
        return real(settlement, *given)

    monkeypatch.setattr(settling, "event_data", faulty)
    line.cut = 1
    with pytest.raises(StorageUnavailable):
        await claim_all(store)
    async with asyncio.timeout(10):
        found = await claim_all(store)
    assert [each.id for each in found] == [new_message(1).id, new_message(3).id]


async def test_results_whose_rows_somebody_keeps_wait_together_no_longer_than_a_few_lock_timeouts(
    store: PostgresStore, url: str
) -> None:
    count, free = 30, 4
    await store.accept(accept_of(*(new_message(n) for n in range(1, count + 1))))
    settlements = [settlement_of(each, Event.ACCEPTED) for each in await claim_all(store)]
    kept = [each.attempt for each in settlements[free:]]
    async with await psycopg.AsyncConnection.connect(url) as blocker:
        await blocker.execute("SELECT 1 FROM attempts WHERE id = ANY(%s) FOR UPDATE", [kept])
        began = time.monotonic()
        answers = await asyncio.gather(*map(store.settle, settlements), return_exceptions=True)
        took = time.monotonic() - began
    assert answers[:free] == [1] * free, "what nobody keeps is written"
    assert all(isinstance(answer, StorageUnavailable) for answer in answers[free:])
    assert took < count * LOCK_TIMEOUT / 2, "not one lock timeout after the other"
    assert await asyncio.gather(*map(store.settle, settlements[free:])) == [1] * (count - free)
    assert (await store.stats(EPOCH + HOUR)).counts[State.SENT] == count


async def test_who_has_had_no_turn_when_a_statements_time_is_over_is_refused_with_the_others(
    store: PostgresStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.accept(accept_of(*(new_message(n) for n in range(1, 4))))
    settlements = [settlement_of(each, Event.ACCEPTED) for each in await claim_all(store)]
    moments = itertools.count(step=60)
    monkeypatch.setattr(lanes, "time", SimpleNamespace(monotonic=lambda: next(moments), perf_counter=time.perf_counter))
    async with await psycopg.AsyncConnection.connect(url) as blocker:
        await blocker.execute("SELECT 1 FROM attempts WHERE id = %s FOR UPDATE", [settlements[0].attempt])
        answers = await asyncio.gather(*map(store.settle, settlements), return_exceptions=True)
    assert all(isinstance(answer, StorageUnavailable) for answer in answers), "also those whose rows nobody keeps"
    assert store.healthy()
    assert await asyncio.gather(*map(store.settle, settlements)) == [1, 1, 1]
