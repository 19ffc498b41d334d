"""The stores that the conformance suite runs against. Another implementation plugs in as one more parameter."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from service.store import open_store
from service.store.port import Store
from tests.support.clock import SteppedClock

URLS = {"sqlite": lambda folder: f"sqlite:///{folder}/post.db"}


@pytest.fixture(params=sorted(URLS))
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    return URLS[request.param](tmp_path)


@pytest.fixture
async def open_another(database_url: str, clock: SteppedClock) -> AsyncIterator[Callable[..., object]]:
    """Open one more store on the same database, as another process would."""
    opened: list[Store] = []

    async def opener(holder: str = "other") -> Store:
        store = open_store(database_url, clock, holder=holder)
        await store.open()
        opened.append(store)
        return store

    yield opener
    for store in opened:
        await store.close()


@pytest.fixture
async def store(open_another: Callable[..., object]) -> Store:
    """An open, empty store."""
    return await open_another("me")  # type: ignore[misc,no-any-return]
