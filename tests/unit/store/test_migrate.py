"""Steps of the schema: each once, in order, never another form of one that was applied, never an older program."""

import asyncio
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from service.clock import SYSTEM
from service.errors import ConfigurationError, StorageUnavailable
from service.store import open_store
from service.store.migrate import migrate
from service.store.queries import Migration, load_migrations
from service.store.sqlite import files
from service.store.sqlite.files import connect_writer, migrate_file


class Schema:
    """Remembers what was applied."""

    def __init__(self, applied: dict[int, str] | None = None) -> None:
        self.done = applied or {}
        self.order: list[int] = []

    def applied(self) -> dict[int, str]:
        return self.done

    def apply(self, migration: Migration) -> None:
        self.order.append(migration.number)


STEPS = [Migration(1, "first", "A"), Migration(2, "second", "B"), Migration(3, "third", "C")]


def test_what_is_missing_is_applied_in_order_and_told() -> None:
    schema, told = Schema({1: STEPS[0].checksum}), list[str]()
    migrate(schema, STEPS, told.append)
    assert schema.order == [2, 3]
    assert told == ["0002 second", "0003 third"]


def test_a_schema_of_a_newer_version_is_refused_with_a_sentence() -> None:
    schema = Schema({**{step.number: step.checksum for step in STEPS}, 9: "x"})
    with pytest.raises(ConfigurationError, match="has step 9, which this version does not know"):
        migrate(schema, STEPS)
    assert schema.order == []


def test_a_step_that_was_applied_in_another_form_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="step 2 of the schema was applied in another form"):
        migrate(Schema({1: STEPS[0].checksum, 2: "other"}), STEPS)


def test_the_steps_of_sqlite_are_numbered_without_a_gap() -> None:
    assert [step.number for step in load_migrations("sqlite")] == list(range(1, len(load_migrations("sqlite")) + 1))


def test_a_file_of_the_first_schema_is_brought_up_to_date_with_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "old.db")
    with monkeypatch.context() as patch:
        patch.setattr(files, "load_migrations", lambda _: load_migrations("sqlite")[:1])
        migrate_file(path)
    connection = connect_writer(path)
    connection.execute(
        "INSERT INTO requests (account, key, fingerprint, answer, expires_at) VALUES ('a', 'k', x'', x'', 1)"
    )
    connection.close()
    migrate_file(path)
    migrate_file(path)
    connection = connect_writer(path)
    assert connection.execute("SELECT key, message FROM requests").fetchall() == [("k", None)]
    assert connection.execute("SELECT count(*) FROM schema_steps").fetchall() == [(len(load_migrations("sqlite")),)]


def test_a_step_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "post.db")
    broken = Migration(1, "broken", "CREATE TABLE half (x); CREATE TABLE half (x);")
    monkeypatch.setattr(files, "load_migrations", lambda _: (broken,))
    with pytest.raises(apsw.SQLError):
        migrate_file(path)
    tables = apsw.Connection(path).execute("SELECT name FROM sqlite_master WHERE name = 'half'").fetchall()
    assert tables == []


def test_a_sqlite_that_can_lose_commits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.51.2")
    with pytest.raises(ConfigurationError, match=r"SQLite 3\.51\.2 can lose committed rows"):
        files.check_library()
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.51.3")
    files.check_library()


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """A file whose lock somebody holds, as within a commit; and that handle."""
    path = str(tmp_path / "post.db")
    handle = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    yield path, handle
    os.close(handle)


def test_a_file_that_others_keep_locked_is_given_up_with_a_sentence(locked: tuple[str, int]) -> None:
    path, _ = locked
    with pytest.raises(StorageUnavailable) as refused:
        migrate_file(path, 0.05)
    assert f"POSTROOM_DATABASE_URL: another process has kept {path}.lock for 0.05 s" in refused.value.detail


async def test_a_store_that_waits_for_the_lock_lets_the_loop_go_on(locked: tuple[str, int]) -> None:
    """Whoever holds it may be another store of this process, which lets it go on this very loop."""
    path, handle = locked
    store = open_store(f"sqlite:///{path}", SYSTEM, holder="second")
    opening = asyncio.create_task(store.open())
    await asyncio.sleep(0)
    assert not opening.done()
    fcntl.flock(handle, fcntl.LOCK_UN)
    async with asyncio.timeout(20):
        await opening
    await store.ping()
    await store.close()
