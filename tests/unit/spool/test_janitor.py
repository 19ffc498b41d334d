"""What the janitor deletes: what is old by a clock that can be believed, and nothing for a clock that is wrong for a moment."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
import structlog

from service.mail.lifecycle import Event
from service.settings import Settings
from service.spool.janitor import Janitor
from service.store.sqlite.store import SQLiteStore
from service.store.values import IdempotencyKey
from tests.support.clock import EPOCH
from tests.support.store_data import accept_of, claim_all, new_message, settlement_of
from tests.unit.spool.test_retention import DAY, HOUR
from tests.unit.test_steady import Jumping


@pytest.fixture
def clock() -> Jumping:
    return Jumping()


@pytest.fixture
async def store(tmp_path: Path, clock: Jumping) -> AsyncIterator[SQLiteStore]:
    """A message that was sent just now."""
    made = SQLiteStore(str(tmp_path / "post.db"), clock, "me")
    await made.open()
    await made.accept(accept_of(new_message(1), key="k"))
    (delivery,) = await claim_all(made, at=EPOCH + 1)
    await made.settle(settlement_of(delivery, Event.ACCEPTED, at=EPOCH + 2))
    yield made
    await made.close()


def janitor_of(store: SQLiteStore, clock: Jumping) -> Janitor:
    """One that does nothing but purge."""
    nothing = cast(Any, None)
    return Janitor(Settings(), clock, store, nothing, nothing, nothing, nothing, nothing)


async def kept(store: SQLiteStore) -> tuple[bool, bool, bool]:
    """Whether the bytes, the log and the key are still there."""
    content = await store.get_content("acme", new_message(1).id)
    message = await store.get_message("acme", new_message(1).id)
    answer = await store.find_answer("acme", IdempotencyKey("k", b"f"))
    return content is not None, message is not None, answer is not None


async def test_what_is_old_is_purged_as_time_goes_by(store: SQLiteStore, clock: Jumping) -> None:
    janitor = janitor_of(store, clock)
    await janitor._purge()
    for days, left in ((0.9, (True, True, True)), (6, (True, True, False)), (0.2, (False, True, False))):
        clock.step(days * DAY / 1000)
        await janitor._purge()
        assert await kept(store) == left, days
    clock.step(90 * DAY / 1000)
    await janitor._purge()
    assert await kept(store) == (False, False, False)


async def test_a_clock_that_is_years_ahead_for_a_moment_purges_nothing_and_is_told_once(
    store: SQLiteStore, clock: Jumping
) -> None:
    janitor = janitor_of(store, clock)
    await janitor._purge()
    clock.jump(1000 * DAY)
    with structlog.testing.capture_logs() as lines:
        for _ in range(10):
            clock.step(30)
            await janitor._purge()
    assert await kept(store) == (True, True, True)
    told = [line for line in lines if line["event"] == "janitor.clock_doubted"]
    assert [line["ahead"] for line in told] == [pytest.approx(1000 * 86_400, abs=1)]
    assert told[0]["purging_by"].startswith("2025-11-24")
    clock.jump(-1000 * DAY)
    clock.step(2 * HOUR)
    await janitor._purge()
    assert await kept(store) == (True, True, True)


async def test_a_process_that_starts_with_a_clock_far_ahead_purges_nothing(store: SQLiteStore, clock: Jumping) -> None:
    clock.jump(1000 * DAY)
    janitor = janitor_of(store, clock)
    for _ in range(10):
        await janitor._purge()
        clock.step(30)
    assert await kept(store) == (True, True, True)
    clock.step(HOUR)
    await janitor._purge()
    assert await kept(store) == (False, False, False), "it has been so for an hour, so it is believed"
