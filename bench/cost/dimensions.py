"""The six dimensions: what there is much of, at which points, and how a service comes to have so many of it.

What a service has is put there before it starts by the program's own code: keys and templates by its use cases, a queue by
bench/filling. All relays are names of one sink.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import httpx

from bench.__main__ import TOKEN, postroom
from bench.cost.measuring import Dimension, Ready, Series
from bench.filling import Backlog, fill
from bench.rivals.work import Variant, postroom_files, write_postroom_template
from service.clock import SYSTEM
from service.spool.folder import Folder
from service.spool.keys import Keys
from service.spool.templates import TemplateLibrary
from service.store import open_store
from service.store.port import Store
from tests.support.process import ServiceProcess
from tests.support.relay_process import relays_file

CONNECTIONS = Variant().connections
SIZE_KB = Variant().size_kb
T = TypeVar("T")
AT_ONCE = 500  # rows that are written together when a store is filled


# --- a service ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """Its templates are the one of the rivals."""
    with tempfile.TemporaryDirectory(prefix="postroom-cost-") as name:
        write_postroom_template(Path(name) / "templates", SIZE_KB)
        yield Path(name)


def _relay(port: int, connections: int = CONNECTIONS) -> str:
    return f"smtp://127.0.0.1:{port}?plaintext=allow&max_connections={connections}&max_messages_per_connection=1000000"


@contextlib.contextmanager
def _service(folder: Path, relays: str | Mapping[str, str], **settings: Any) -> Iterator[ServiceProcess]:
    """On the folder's database. relays: the URL of one, or of several by their names."""
    settings = {"templates_dir": folder / "templates", "database_url": _database(folder), **settings}
    if not isinstance(relays, str):
        settings["relays_file"] = relays_file(folder, {name: {"url": url} for name, url in relays.items()})
        relays = ""
    with postroom(relays, **settings) as service:
        yield service


def _database(folder: Path) -> str:
    return f"sqlite:///{folder}/post.db"


def _ready(service: ServiceProcess, **more: Any) -> Ready:
    return Ready(service.port, service.process.pid, **{"tokens": (TOKEN,), **more})


def _stored(folder: Path, work: Callable[[Store], Awaitable[T]]) -> T:
    """Do `work` with the folder's store while no service has it."""

    async def run() -> T:
        store = open_store(_database(folder), SYSTEM, holder="bench")
        await store.open()
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())


async def _together(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    found: list[T] = []
    for start in range(0, len(work), AT_ONCE):
        found += await asyncio.gather(*work[start : start + AT_ONCE])
    return found


# --- with so many ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _queue(depth: int, port: int) -> Iterator[Ready]:
    """So many messages wait for a relay that is paused, while another one sends."""
    # a pause is of an account, so the other relay needs another host name
    relays = {"quick": _relay(port), "paused": _relay(port).replace("127.0.0.1", "localhost")}
    with _folder() as folder:
        with _service(folder, relays) as service:
            header = {"Authorization": f"Bearer {TOKEN}"}
            httpx.post(
                f"{service.url}/relays/paused/pause", json={"reason": "it waits"}, headers=header
            ).raise_for_status()
        fill(_database(folder), Backlog(depth, relay="paused"))
        with _service(folder, relays) as service:
            yield _ready(service, relays=("quick",))


@contextlib.contextmanager
def _recipients(count: int, port: int) -> Iterator[Ready]:
    with _folder() as folder, _service(folder, _relay(port), max_recipients=count) as service:
        yield _ready(service, recipients=count)


@contextlib.contextmanager
def _connections(count: int, port: int) -> Iterator[Ready]:
    with _folder() as folder, _service(folder, _relay(port, count)) as service:
        yield _ready(service)


def _named(count: int, port: int) -> AbstractContextManager[Ready]:
    """Each request names its relay."""
    return _relays(count, port, named=True)


def _picked(count: int, port: int) -> AbstractContextManager[Ready]:
    """The service picks one for each message."""
    return _relays(count, port, named=False)


@contextlib.contextmanager
def _relays(count: int, port: int, *, named: bool) -> Iterator[Ready]:
    """They share the usual number of connections, and have one each where there are more of them."""
    names = [f"relay{number}" for number in range(count)]
    urls = dict.fromkeys(names, _relay(port, max(CONNECTIONS // count, 1)))
    with _folder() as folder, _service(folder, urls) as service:
        yield _ready(service, relays=names if named else ())


@contextlib.contextmanager
def _keys(count: int, port: int) -> Iterator[Ready]:
    async def make(store: Store) -> list[str]:
        keys = Keys(SYSTEM, store)
        return [token for _, token in await _together([keys.create("default", "bench") for _ in range(count)])]

    with _folder() as folder:
        tokens = _stored(folder, make)
        with _service(folder, _relay(port)) as service:
            yield _ready(service, tokens=tokens)


@contextlib.contextmanager
def _files(count: int, port: int) -> Iterator[Ready]:
    """Templates of the folder."""
    names = [f"receipt{number}" for number in range(count)]
    with _folder() as folder:
        for name in names:
            write_postroom_template(folder / "templates", SIZE_KB, name)
        with _service(folder, _relay(port)) as service:
            yield _ready(service, templates=names)


@contextlib.contextmanager
def _published(count: int, port: int) -> Iterator[Ready]:
    """Templates of the store."""
    names = [f"receipt{number}" for number in range(count)]

    async def publish(store: Store) -> None:
        library = TemplateLibrary(Folder(folder / "templates"), store, SYSTEM, watch=False, published_for=0, kept=count)
        await _together([library.publish(name, postroom_files(SIZE_KB)) for name in names])

    with _folder() as folder:
        _stored(folder, publish)
        with _service(folder, _relay(port)) as service:
            yield _ready(service, templates=names)


DIMENSIONS = {
    each.name: each
    for each in (
        Dimension(
            "depth",
            "Queue depth",
            "messages that wait for another relay",
            "Flat: what waits elsewhere in the same store is not looked at.",
            (0, 1_000, 10_000, 100_000, 1_000_000),
            [Series("", _queue)],
        ),
        Dimension(
            "recipients",
            "Recipients of a message",
            "recipients of each message",
            "Falling: a further recipient costs less than a message of its own.",
            (1, 10, 50, 200, 1_000),
            [Series("", _recipients)],
            unit="recipient",
        ),
        Dimension(
            "connections",
            "Connections to the relay",
            "connections",
            "Flat in cost; with a late relay the rate grows with the connections until a core is full.",
            (1, 2, 5, 10, 20, 50),
            [Series("replies at once", _connections), Series("replies 20 ms late", _connections, 20)],
        ),
        Dimension(
            "relays",
            "Relays",
            "relays",
            "Flat: a message that names its relay is asked of that one alone, and equal relays answer alike.",
            (1, 2, 10, 30, 100),
            [Series("named in turn", _named), Series("picked by weight", _picked)],
        ),
        Dimension(
            "keys",
            "API keys",
            "keys in turn",
            "Flat: a key is looked up by its prefix.",
            (1, 10, 100, 1_000, 10_000),
            [Series("", _keys)],
        ),
        Dimension(
            "templates",
            "Templates",
            "templates in turn",
            "Flat: a template is compiled once.",
            (1, 10, 100, 1_000),
            [Series("in the folder", _files), Series("published", _published)],
        ),
    )
}
