"""SQLite alone: a backlog costs nothing. Counted in instructions of its virtual machine, so that no clock can lie.

What the plans show statement by statement (tests/architecture/test_sql.py) is shown here for whole operations.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from service.mail.lifecycle import Event
from service.mail.quota import Per
from service.store.shown import MessageFilter
from service.store.sqlite import store as module
from service.store.sqlite.store import SQLiteStore
from service.store.values import RescuePolicy, Want
from tests.support.clock import EPOCH, SteppedClock
from tests.support.sending import quota
from tests.support.store_data import HOUR, accept_of, new_message, settlement_of

POLICY = RescuePolicy(900, 2, 3)
BACKLOG, FEW = 3000, 10
GRAIN = 5  # instructions between two counts


class Counter:
    """Instructions that all connections of a store have run."""

    def __init__(self) -> None:
        self.ticks = 0

    def watch(self, connect: Callable[[str], Any]) -> Callable[[str], Any]:
        """`connect`, counting."""

        def counting(path: str) -> Any:
            connection = connect(path)
            connection.set_progress_handler(self._tick, GRAIN)
            return connection

        return counting

    def _tick(self) -> bool:
        self.ticks += 1
        return False

    async def of(self, work: Awaitable[Any]) -> int:
        """Instructions that `work` takes."""
        before = self.ticks
        await work
        return (self.ticks - before) * GRAIN


@pytest.fixture
async def counter(monkeypatch: pytest.MonkeyPatch) -> Counter:
    made = Counter()
    for name in ("connect_writer", "connect_reader"):
        monkeypatch.setattr(module, name, made.watch(getattr(module, name)))
    return made


async def filled(folder: Path, count: int) -> SQLiteStore:
    """A store with `count` messages due on one route, and a few on another."""
    store = SQLiteStore(str(folder / f"{count}.db"), SteppedClock(), "me")
    await store.open()
    for start in range(1, count + 1, 500):
        numbers = range(start, min(start + 500, count + 1))
        await store.accept(accept_of(*(new_message(number, route="acme|busy|") for number in numbers)))
    await store.accept(accept_of(*(new_message(20_000 + number, route="acme|calm|") for number in range(FEW))))
    return store


@pytest.fixture
async def stores(counter: Counter, tmp_path: Path) -> AsyncIterator[tuple[SQLiteStore, SQLiteStore]]:
    """Nearly empty, and with a backlog."""
    pair = await filled(tmp_path, FEW), await filled(tmp_path, BACKLOG)
    yield pair
    for store in pair:
        await store.close()


async def claim(store: SQLiteStore, route: str) -> Any:
    return (await store.claim(lambda: [Want(route, "r", 3)], "me", lambda: EPOCH + HOUR, 60)).deliveries


async def claim_and_settle(store: SQLiteStore) -> None:
    for delivery in await claim(store, "acme|busy|"):
        await store.settle(settlement_of(delivery, Event.ACCEPTED))


LIMITS = quota("2/h"), quota("1000/d recipients"), quota("5/h", Per.RECIPIENT)


async def claim_within_quotas(store: SQLiteStore) -> None:
    for _ in range(2):  # the second gets nothing
        found = await store.claim(lambda: [Want("acme|busy|", "r", 3, quotas=LIMITS)], "me", lambda: EPOCH + HOUR, 60)
        for delivery in found.deliveries:
            await store.settle(settlement_of(delivery, Event.ACCEPTED))


OPERATIONS: dict[str, Callable[[SQLiteStore], Awaitable[Any]]] = {
    "accept": lambda store: store.accept(accept_of(new_message(90_000), key="k")),
    "claim on another route": lambda store: claim(store, "acme|calm|"),
    "claim and settle on the busy route": claim_and_settle,
    "claim and settle within quotas": claim_within_quotas,
    "due_routes": lambda store: store.due_routes(),
    "stats": lambda store: store.stats(EPOCH + HOUR),
    "heartbeat": lambda store: store.heartbeat("me", EPOCH, 60),
    "rescue": lambda store: store.rescue(EPOCH, POLICY),
    "expire": lambda store: store.expire(EPOCH, 500),
    "get_message": lambda store: store.get_message("acme", new_message(5).id),
    "a page": lambda store: store.list_messages("acme", MessageFilter(), FEW, None),
    "a page by state": lambda store: store.list_messages("acme", MessageFilter(status="queued"), FEW, None),
    "cancel": lambda store: store.cancel("acme", new_message(5).id, EPOCH),
    "purge_content": lambda store: store.purge_content(EPOCH, EPOCH, 500),
    "purge_log": lambda store: store.purge_log(EPOCH, EPOCH, 500),
    "purge_keys": lambda store: store.purge_keys(EPOCH, 1, 500),
}


@pytest.mark.parametrize("name", sorted(OPERATIONS))
async def test_an_operation_takes_as_many_instructions_with_thousands_waiting_as_with_ten(
    counter: Counter, stores: tuple[SQLiteStore, SQLiteStore], name: str
) -> None:
    few, many = [await counter.of(OPERATIONS[name](store)) for store in stores]
    assert many <= few * 1.2 + 50, (few, many)


async def test_the_count_can_tell_a_scan(counter: Counter, stores: tuple[SQLiteStore, SQLiteStore]) -> None:
    """The control: a filter that matches nothing has to look at all rows, and the counter shows it."""
    nothing = MessageFilter(status="queued", template="none")
    few, many = [await counter.of(store.list_messages("acme", nothing, 10, None)) for store in stores]
    assert many > few * 100


async def test_a_lane_that_has_nothing_left_is_not_asked_for_each_further_relay(
    counter: Counter, stores: tuple[SQLiteStore, SQLiteStore]
) -> None:
    few, _ = stores
    taken: dict[int, list[int]] = {}

    async def claimed(relays: int) -> None:
        wants = [Want("acme|calm|", f"r{number}", FEW) for number in range(relays)]
        deliveries = (await few.claim(lambda: wants, "me", lambda: EPOCH + HOUR, 60)).deliveries
        taken.setdefault(relays, []).append(len(deliveries))
        for delivery in deliveries:
            await few.settle(settlement_of(delivery, Event.NOT_STARTED, due_at=EPOCH))

    await counter.of(claimed(1))  # what only the first claim costs
    one, hundred = await counter.of(claimed(1)), await counter.of(claimed(100))
    assert taken == {1: [FEW, FEW], 100: [FEW]}
    assert hundred <= one * 1.1
