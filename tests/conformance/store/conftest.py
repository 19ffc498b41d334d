"""The stores that the conformance suite runs against. Another implementation plugs in as one more parameter."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from service.store import open_store
from service.store.port import Store
from tests.support.clock import SteppedClock
from tests.support.postgres import shared_server

URLS: dict[str, Callable[[Path], str]] = {
    "sqlite": lambda folder: f"sqlite:///{folder}/post.db",
    "postgres": lambda folder: shared_server().new_database(),
}


def done_with(url: str) -> None:
    """A server's database is emptied for the next test; a file goes with its folder."""
    if not url.startswith("sqlite"):
        shared_server().give_back(url)


@pytest.fixture(params=sorted(URLS))
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database."""
    url = URLS[request.param](tmp_path)
    yield url
    done_with(url)


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
