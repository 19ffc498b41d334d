"""PostgreSQL: a process that stands still within a transaction costs the others no lease."""

import time
from collections.abc import Iterator

import psycopg
import pytest

from service.clock import SYSTEM
from service.settings import load
from service.store import bounds_of
from service.store.postgres.limits import hold
from service.store.postgres.session import Session
from service.store.postgres.statements import BEGIN, ROLLBACK, Statement
from service.store.postgres.store import PostgresStore
from service.store.postgres.transaction import Transaction
from service.store.values import Want
from tests.support.postgres import shared_server
from tests.support.sending import quota
from tests.support.store_data import ROUTE, accept_of, new_message

LEASE = 15.0  # seconds
HOURLY = quota("5/h", guard=0, headroom=0)


@pytest.fixture
def url() -> Iterator[str]:
    made = shared_server().new_database()
    yield made
    shared_server().give_back(made)


@pytest.mark.parametrize("lease", [2, 4, 15, 30, 600])
def test_nobody_waits_for_a_third_of_a_lease_and_who_stands_still_is_ended_before(lease: float) -> None:
    bounds = bounds_of(load(lease=lease))
    assert bounds.idle_timeout < bounds.lock_timeout < lease / 3
    assert bounds.lock_timeout <= load().database_lock_timeout


async def test_a_claim_outlasts_a_process_that_stands_still_with_the_quota_in_its_hands(url: str) -> None:
    bounds = bounds_of(load(lease=LEASE))
    store = PostgresStore(url, SYSTEM, "me", bounds)
    await store.open()
    now = SYSTEM.now()
    await store.accept(accept_of(new_message(1, expires_at=now + 3_600_000)))
    stopped = await Session.open(url, bounds.connect_timeout, bounds.deadline)
    try:
        await Transaction(stopped, bounds, 0).run(*hold([HOURLY.bucket()]))  # and never goes on
        began = time.monotonic()
        wants = [Want(ROUTE, "r", 1, quotas=(HOURLY,))]
        found = await store.claim(lambda: wants, "me", lambda: now, LEASE)
        assert len(found.deliveries) == 1, "it is let in, not refused"
        assert time.monotonic() - began < LEASE / 3
    finally:
        stopped.close()
        await store.close()


@pytest.mark.parametrize("behind", [0, 1, 300])
async def test_a_batch_that_fails_says_why_and_leaves_its_connection_in_order(url: str, behind: int) -> None:
    """However much of it was sent, and answered, when the fault was heard of."""
    bounds = bounds_of(load())
    session = await Session.open(url, bounds.connect_timeout, bounds.deadline)
    try:
        size = Statement("size", "SELECT length($1)", ("x" * 20_000,))
        fault = Statement("fault", "SELECT 1 / $1", (0,))
        for _ in range(3):
            with pytest.raises(psycopg.errors.DivisionByZero):
                await session.run([BEGIN, size, fault, *[size] * behind])
            await session.run([ROLLBACK])
            assert await session.run([size, size]) == [[(20_000,)]] * 2
        assert session.usable
    finally:
        session.close()
