"""SQLite: a process that stands still with the file's lock makes no orphans of what others hold."""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.store.sqlite.store import SQLiteStore
from service.store.values import RescuePolicy
from tests.support.clock import EPOCH, SteppedClock
from tests.support.store_data import accept_of, claim_all, new_message

LEASE, STILL = 4.0, 5.5  # seconds
POLICY = RescuePolicy(in_doubt_delay=900, max_in_doubt=2, max_kills=10)


@pytest.fixture
async def opened(tmp_path: Path, clock: SteppedClock) -> AsyncIterator[Callable[..., object]]:
    stores: list[SQLiteStore] = []

    async def opener(holder: str) -> SQLiteStore:
        stores.append(SQLiteStore(str(tmp_path / "post.db"), clock, holder))
        await stores[-1].open()
        return stores[-1]

    yield opener
    for store in stores:
        await store.close()


@contextmanager
def stopped_within_a_commit(folder: Path, clock: SteppedClock) -> Iterator[None]:
    """Another process holds the lock, and goes on when it is too late for leases."""
    handle = os.open(folder / "post.db.lock", os.O_RDWR)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
        clock.step(STILL)
    finally:
        os.close(handle)


async def holding(store: SQLiteStore, holder: str, number: int) -> None:
    """An attempt that is open."""
    await store.accept(accept_of(new_message(number)))
    (_,) = await claim_all(store, at=EPOCH + 1000, holder=holder, lease=LEASE)


async def test_a_lease_that_could_not_be_renewed_in_time_counts_from_when_it_is(
    opened: Callable[..., object], tmp_path: Path, clock: SteppedClock
) -> None:
    one: SQLiteStore = await opened("one")  # type: ignore[misc]
    await holding(one, "one", 1)
    with stopped_within_a_commit(tmp_path, clock):
        renewing = asyncio.create_task(one.heartbeat("one", clock.now(), LEASE))
        await asyncio.sleep(0)
    assert await renewing == 1
    clock.step(LEASE - 0.5)
    assert await one.rescue(clock.now(), POLICY) == 0
    clock.step(1)
    assert await one.rescue(clock.now(), POLICY) == 1


@pytest.mark.parametrize("who_waited", ["heartbeat", "rescue"])
async def test_who_was_held_up_leaves_the_others_time_to_renew_and_takes_what_the_dead_held(
    opened: Callable[..., object], tmp_path: Path, clock: SteppedClock, who_waited: str
) -> None:
    one: SQLiteStore = await opened("one")  # type: ignore[misc]
    other: SQLiteStore = await opened("other")  # type: ignore[misc]
    dead: SQLiteStore = await opened("dead")  # type: ignore[misc]
    await holding(other, "other", 1)
    await holding(dead, "dead", 2)
    with stopped_within_a_commit(tmp_path, clock):
        if who_waited == "heartbeat":
            waiting = asyncio.create_task(one.heartbeat("one", clock.now(), LEASE))
        else:
            waiting = asyncio.create_task(one.rescue(clock.now() + 60_000, POLICY))
        await asyncio.sleep(0)
    assert await waiting == 0
    await dead.close()
    assert await one.rescue(clock.now(), POLICY) == 1, "the dead one's"
    assert await looks(one, clock, 1.5) == 0
    assert await looks(one, clock, 1.5) == 1, "and the other's, who has not come"


async def test_who_stood_still_itself_leaves_the_others_time_to_renew(
    opened: Callable[..., object], clock: SteppedClock
) -> None:
    """It may have held the lock, and be the first to have it again."""
    one: SQLiteStore = await opened("one")  # type: ignore[misc]
    other: SQLiteStore = await opened("other")  # type: ignore[misc]
    await holding(other, "other", 1)
    assert await looks(one, clock, 1) == 0
    assert await looks(one, clock, STILL) == 0
    assert await looks(one, clock, 1.5) == 0
    assert await looks(one, clock, 1.5) == 1


async def looks(store: SQLiteStore, clock: SteppedClock, later: float) -> int:
    """What it finds orphaned after so many seconds."""
    clock.step(later)
    return await store.rescue(clock.now(), POLICY)
