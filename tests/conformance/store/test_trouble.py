"""Storage trouble on SQLite: a disk that refuses to sync makes no false answer, and the store recovers by itself."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from service.errors import StorageUnavailable
from service.mail.lifecycle import Event, State
from service.store.sqlite import store as module
from service.store.sqlite.files import connect_writer
from service.store.sqlite.store import SQLiteStore
from service.store.values import Accepted, Replayed, Want
from tests.support.clock import EPOCH, SteppedClock
from tests.support.sending import quota
from tests.support.store_data import HOUR, ROUTE, accept_of, claim_all, new_message, settlement_of, states


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


# --- a commit that was refused, and happened --------------------------------------------------------------------------


class Log:
    """The write-ahead log: gone under its name for a moment, while the store goes on writing to it."""

    def __init__(self, database: Path) -> None:
        self._file, self._kept = database.with_name(f"{database.name}-wal"), database.with_name("kept")

    def lose(self) -> None:
        """From now on each commit is refused, though what it wrote is in the file."""
        os.link(self._file, self._kept)
        self._file.unlink()

    def find(self) -> None:
        """The same file is there again, with all that was written to it."""
        os.link(self._kept, self._file)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    made = SQLiteStore(str(tmp_path / "post.db"), SteppedClock(), "me")
    await made.open()
    yield made
    await made.close()


async def test_an_accept_that_was_refused_and_happened_is_kept_once_and_found_by_its_key(
    store: SQLiteStore, tmp_path: Path
) -> None:
    log = Log(tmp_path / "post.db")
    log.lose()
    with pytest.raises(StorageUnavailable):
        await store.accept(accept_of(new_message(1), key="k"))
    log.find()
    assert await recovered(store)
    assert await store.accept(accept_of(new_message(2), key="k")) == Replayed(b"answer k")
    assert (await store.stats(EPOCH)).counts == {State.QUEUED: 1}
    assert [each.id for each in await claim_all(store)] == [new_message(1).id]
    assert await claim_all(store) == []


async def test_a_claim_that_was_refused_and_happened_is_given_back_and_has_cost_nothing(
    store: SQLiteStore, tmp_path: Path
) -> None:
    limit = quota("5/h", guard=0, headroom=0)
    wants = [Want(ROUTE, "r", 3, quotas=(limit,))]
    await store.accept(accept_of(*(new_message(n) for n in range(1, 4))))
    log = Log(tmp_path / "post.db")
    log.lose()
    with pytest.raises(StorageUnavailable):
        await store.claim(lambda: wants, "me", lambda: EPOCH + HOUR, 60)
    log.find()
    assert await recovered(store)
    assert (await store.stats(EPOCH)).counts == {State.QUEUED: 3, State.SENDING: 0}
    found = (await store.claim(lambda: wants, "me", lambda: EPOCH + HOUR, 60)).deliveries
    assert [each.id for each in found] == [new_message(n).id for n in (1, 2, 3)]
    assert {each.attempts for delivery in found for each in delivery.recipients} == {0}
    assert (await store.quota_use([limit], EPOCH + HOUR))[0].used == 3
    assert await store.heartbeat("me", EPOCH + HOUR, 60) == 3, "nobody keeps alive what was lost"


async def test_a_claim_that_was_refused_and_did_not_happen_takes_nothing_from_who_has_its_number_now(
    disk: Disk, tmp_path: Path
) -> None:
    """Another process claims what this one did not, under the same number, before this one has reopened the file."""
    path = str(tmp_path / "post.db")
    mine, other = SQLiteStore(path, SteppedClock(), "me"), SQLiteStore(path, SteppedClock(), "other")
    await mine.open()
    await other.open()
    await mine.accept(accept_of(new_message(1)))
    disk.failing = "write"
    with pytest.raises(StorageUnavailable):
        await claim_all(mine)
    disk.failing = ""
    (theirs,) = await claim_all(other, holder="other")
    assert await recovered(mine)
    assert await states(mine, theirs.id) == [State.SENDING]
    assert await other.settle(settlement_of(theirs, Event.ACCEPTED)) == 1
    await mine.close()
    await other.close()
