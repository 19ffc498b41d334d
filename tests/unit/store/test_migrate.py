"""Steps of the schema: each once, in order, never another form of one that was applied, never an older program."""

import asyncio
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
import structlog

from service.clock import SYSTEM
from service.errors import ConfigurationError, StorageUnavailable
from service.store import open_store
from service.store.migrate import DUE, Outcome, Wanted, migrate
from service.store.queries import Migration, Phase, load_migrations
from service.store.sqlite import files
from service.store.sqlite.files import connect_writer, migrate_file


class Schema:
    """Remembers what was applied."""

    def __init__(self, applied: dict[int, str] | None = None, living: dict[str, int] | None = None) -> None:
        self.done = applied or {}
        self.order: list[int] = []
        self.living = living or {}  # by process, the newest step that it knows

    def applied(self) -> dict[int, str]:
        return self.done

    def apply(self, migration: Migration) -> None:
        self.order.append(migration.number)

    def older(self, number: int) -> list[str]:
        return [holder for holder, knows in self.living.items() if knows < number]


STEPS = [Migration(1, "first", "A"), Migration(2, "second", "B"), Migration(3, "third", "C")]


def test_what_is_missing_is_applied_in_order_and_told() -> None:
    schema = Schema({1: STEPS[0].checksum})
    assert migrate(schema, STEPS) == Outcome(["0002 second", "0003 third"])
    assert schema.order == [2, 3]


def test_a_schema_of_a_newer_version_is_refused_with_a_sentence() -> None:
    schema = Schema({**{step.number: step.checksum for step in STEPS}, 9: "x"})
    with pytest.raises(ConfigurationError, match="has step 9, which this version does not know"):
        migrate(schema, STEPS)
    assert schema.order == []


def test_a_step_that_was_applied_in_another_form_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="step 2 of the schema was applied in another form"):
        migrate(Schema({1: STEPS[0].checksum, 2: "other"}), STEPS)


# Version 1 knows step 1, version 2 the steps to 3, version 3 all.
PHASED = [
    Migration(1, "first", "-- additive\nA"),
    Migration(2, "adds", "-- additive\nB"),
    Migration(3, "takes", "-- post\nC"),
    Migration(4, "adds more", "-- additive\nD"),
    Migration(5, "takes more", "-- post\nE"),
]
PRE, POST, FORCED = Wanted(Phase.PRE), Wanted(Phase.POST), Wanted(force=True)


def phased(newest: int, **living: int) -> Schema:
    """A schema with the steps up to `newest`, and processes with the newest step that each knows."""
    return Schema({step.number: step.checksum for step in PHASED[:newest]}, living)


def test_a_step_that_takes_something_away_waits_for_the_processes_of_the_version_before() -> None:
    schema = phased(1, old=1, new=3)
    assert migrate(schema, PHASED[:3]) == Outcome(["0002 adds"], ["0003 takes"], ["old"])
    assert schema.order == [2]


@pytest.mark.parametrize(
    ("schema", "wanted", "order"),
    [
        (phased(1, new=3), DUE, [2, 3]),
        (phased(1, new=3), PRE, [2]),
        (phased(1), PRE, [2]),
        (phased(1, old=1), FORCED, [2, 3]),
        (phased(2, new=3), POST, [3]),
        (phased(2, old=1), Wanted(Phase.POST, force=True), [3]),
        (phased(0), PRE, [1, 2, 3]),
    ],
)
def test_steps_of_each_phase_are_applied_when_they_are_due(schema: Schema, wanted: Wanted, order: list[int]) -> None:
    """On an empty database all are: nobody uses it yet."""
    migrate(schema, PHASED[:3], wanted)
    assert schema.order == order


def test_what_the_version_before_has_left_is_done_before_what_comes_after_it() -> None:
    schema = phased(2, before=3)
    assert migrate(schema, PHASED, PRE) == Outcome(["0003 takes", "0004 adds more"], ["0005 takes more"])
    assert schema.order == [3, 4]


def test_versions_that_are_two_apart_do_not_run_together() -> None:
    schema = phased(2, old=1, before=3)
    for wanted in (DUE, PRE):
        with pytest.raises(ConfigurationError, match=r"step 0003 takes .* still runs: old\. Stop it, or .* --force"):
            migrate(schema, PHASED, wanted)
    assert schema.order == []


def test_who_asks_for_a_phase_that_can_not_be_is_told_why() -> None:
    with pytest.raises(ConfigurationError, match=r"step 0003 takes .* still runs: old"):
        migrate(phased(2, old=1), PHASED[:3], POST)
    with pytest.raises(
        ConfigurationError, match=r"step 0002 adds is missing; run `postroom migrate --phase pre` first"
    ):
        migrate(phased(1), PHASED[:3], POST)


def test_a_start_tells_which_steps_it_has_left() -> None:
    with structlog.testing.capture_logs() as lines:
        migrate(phased(1, old=1), PHASED[:3]).tell()
        migrate(phased(1), PHASED[:3]).tell()
    assert [(line["event"], line["steps"], line["older"]) for line in lines] == [
        ("store.steps_left", ["0003 takes"], ["old"])
    ]


@pytest.mark.parametrize("known", [1, None])
async def test_a_step_of_a_file_waits_for_a_process_that_does_not_know_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: int | None
) -> None:
    """A process says in its own file what it knows; one that says nothing knows nothing."""
    path = str(tmp_path / "post.db")
    steps = load_migrations("sqlite")
    store = open_store(f"sqlite:///{path}", SYSTEM, holder="old")
    await store.open()
    (tmp_path / "post.db.holders" / "old").write_text("" if known is None else str(known))
    taking = Migration(len(steps) + 1, "takes", "-- post\nCREATE TABLE taken (x)")
    monkeypatch.setattr(files, "load_migrations", lambda _: (*steps, taking))
    assert migrate_file(path) == Outcome([], [taking.title], ["old"])
    new = open_store(f"sqlite:///{path}", SYSTEM, holder="new")
    await new.open()
    await store.close()
    assert migrate_file(path) == Outcome([taking.title])
    await new.close()


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
