"""Storage trouble on SQLite: a disk that refuses to sync makes no false answer, and the store recovers by itself."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from service.errors import StorageUnavailable
from service.mail.lifecycle import State
from service.store.sqlite import store as module
from service.store.sqlite.files import connect_writer
from service.store.sqlite.store import SQLiteStore
from service.store.values import Accepted
from tests.support.clock import EPOCH, SteppedClock
from tests.support.store_data import accept_of, new_message, states


class Disk(apsw.VFS):
    """The real disk, until `failing` names what it refuses: sync or write."""

    def __init__(self) -> None:
        self.failing = ""
        super().__init__("failing-disk", "")

    def xOpen(self, name: Any, flags: Any) -> Any:
        return File(self, name, flags)


class File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: Any) -> None:
        self._disk = disk
        super().__init__("", name, flags)

    def xSync(self, flags: int) -> None:
        if self._disk.failing == "sync":
            raise apsw.IOError("the disk does not sync")
        super().xSync(flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        if self._disk.failing == "write":
            raise apsw.FullError("the disk is full")
        super().xWrite(data, offset)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    made = Disk()

    def connect(path: str) -> apsw.Connection:
        real = apsw.Connection

        def through(path: str, **given: Any) -> apsw.Connection:
            return real(path, vfs="failing-disk", **given)

        with monkeypatch.context() as patch:
            patch.setattr(apsw, "Connection", through)
            return connect_writer(path)

    monkeypatch.setattr(module, "connect_writer", connect)
    yield made
    made.unregister()


async def recovered(store: SQLiteStore) -> bool:
    """Whether it is healthy again within ten seconds."""
    for _ in range(1000):
        if store.healthy():
            return True
        await asyncio.sleep(0.01)
    return False


@pytest.mark.parametrize("trouble", ["sync", "write"])
async def test_a_commit_that_fails_is_never_answered_and_the_store_recovers(
    disk: Disk, tmp_path: Path, trouble: str
) -> None:
    store = SQLiteStore(str(tmp_path / "post.db"), SteppedClock(), "me")
    await store.open()
    assert await store.accept(accept_of(new_message(1))) == Accepted()
    disk.failing = trouble
    answers = await asyncio.gather(*(store.accept(accept_of(new_message(n))) for n in (2, 3)), return_exceptions=True)
    assert all(isinstance(answer, StorageUnavailable) for answer in answers), answers
    assert not store.healthy()
    with pytest.raises(StorageUnavailable):
        await store.accept(accept_of(new_message(4)))
    with pytest.raises(StorageUnavailable):
        await store.ping()
    disk.failing = ""
    assert await recovered(store)
    assert await store.accept(accept_of(new_message(5))) == Accepted()
    assert await states(store, new_message(1).id) == [State.QUEUED]
    assert await states(store, new_message(5).id) == [State.QUEUED]
    assert await store.get_message("acme", new_message(4).id) is None
    assert (await store.stats(EPOCH)).counts[State.QUEUED] >= 2
    await store.close()
