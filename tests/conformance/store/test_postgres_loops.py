"""PostgreSQL: what the store does for ever goes on after a fault of ours, which is told."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import structlog

from service.errors import StorageUnavailable
from service.store.bounds import Bounds
from service.store.postgres import database, hints
from service.store.postgres import store as stores
from service.store.postgres.hints import Hints
from service.store.postgres.lane import Lane
from service.store.postgres.statements import Statement, statement
from service.store.postgres.store import PostgresStore
from tests.support.clock import SteppedClock
from tests.support.postgres import shared_server
from tests.support.store_data import accept_of, new_message
from tests.support.waiting import until


@pytest.fixture
def url() -> Iterator[str]:
    made = shared_server().new_database()
    yield made
    shared_server().give_back(made)


@pytest.fixture
async def store(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PostgresStore]:
    """One that looks at its server, and tries hints again, many times a second."""
    monkeypatch.setattr(database, "_LOOK_EVERY", 0.02)
    monkeypatch.setattr(hints, "_GIVE_UP_FOR", 0.02)
    made = PostgresStore(url, SteppedClock(), "me", Bounds())
    await made.open()
    yield made
    await made.close()


def once_broken(real: Callable[..., Any]) -> Callable[..., Any]:
    """`real`, a function or a method, which fails the first time."""
    failed: list[bool] = []

    def perhaps(*given: Any, **named: Any) -> Any:
        if not failed:
            failed.append(True)
            raise LookupError("a fault of ours")
        return real(*given, **named)

    return perhaps


def told(lines: list[Any]) -> list[str]:
    """Which loops told of a fault."""
    return [line["during"] for line in lines if line["event"] == "loop.failed"]


async def test_a_lane_refuses_the_group_of_which_it_does_not_know_what_came_and_serves_the_next(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lane, "_answer", once_broken(Lane._answer))
    with structlog.testing.capture_logs() as lines:
        async with asyncio.timeout(10):
            with pytest.raises(StorageUnavailable):
                await store.accept(accept_of(new_message(1)))
        await until(store.healthy)
        await store.accept(accept_of(new_message(2)))
    assert told(lines) == ["lane"]


async def test_a_lane_whose_reconnection_fails_by_a_fault_of_ours_tries_again(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lane, "_answer", once_broken(Lane._answer))
    monkeypatch.setattr(Lane, "_fresh", once_broken(Lane._fresh))
    with structlog.testing.capture_logs() as lines:
        async with asyncio.timeout(10):
            with pytest.raises(StorageUnavailable):
                await store.accept(accept_of(new_message(1)))
        await until(store.healthy)
        await store.accept(accept_of(new_message(2)))
    assert told(lines) == ["lane", "recover"]


async def test_the_watch_that_fails_by_a_fault_of_ours_takes_the_store_for_lost_and_looks_again(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with structlog.testing.capture_logs() as lines:
        monkeypatch.setattr(database, "_soon", once_broken(database._soon))
        await until(lambda: "store.recovered" in [line["event"] for line in lines])
    assert told(lines) == ["watch"]
    await store.accept(accept_of(new_message(1)))


async def test_a_process_goes_on_to_say_that_it_lives_after_a_fault_of_ours(
    store: PostgresStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "SILENT_AFTER", 0.1)
    told_of: list[bool] = []
    real = PostgresStore._living

    def living(self: PostgresStore, holder: str) -> Statement:
        told_of.append(True)
        return (
            real(self, holder)
            if len(told_of) != 2
            else statement("close: holder", {"holder": holder})._replace(text="no statement", values=())
        )

    monkeypatch.setattr(PostgresStore, "_living", living)
    with structlog.testing.capture_logs() as lines:
        other = PostgresStore(url, SteppedClock(), "another", Bounds())
        await other.open()
        await until(lambda: len(told_of) >= 4)
        await other.close()
    assert told(lines) == ["alive"]


@pytest.mark.parametrize(("step", "during"), [("_tell", "tell"), ("_hear", "hear")])
async def test_hints_go_on_after_a_fault_of_ours(
    store: PostgresStore, url: str, monkeypatch: pytest.MonkeyPatch, step: str, during: str
) -> None:
    broken = once_broken(getattr(Hints, step))
    monkeypatch.setattr(Hints, step, broken)
    heard: list[bool] = []
    with structlog.testing.capture_logs() as lines:
        other = PostgresStore(url, SteppedClock(), "another", Bounds())
        await other.open()
        other.on_hint(lambda: heard.append(True))
        store.on_hint(lambda: None)
        await other.accept(accept_of(new_message(1)))
        await until(lambda: bool(told(lines)))
        await until(other._hints.working.is_set)
        heard.clear()
        await store.accept(accept_of(new_message(2)))
        await until(lambda: bool(heard))
        await other.close()
    assert told(lines) == [during]
