"""The order of a move: what is refused, and where the mail is when something fails between the mark and the commit."""

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from service.errors import ConfigurationError, StorageUnavailable
from service.store.marks import Mark
from service.store.move import LEFT, NUMBERED, Row, move
from service.store.queries import load_migrations
from service.store.sqlite import placing
from service.store.sqlite.files import connect_writer, migrate_file
from service.store.sqlite.moving import SQLiteTarget
from tests.support.clock import EPOCH, SteppedClock
from tests.support.postgres import shared_server

TABLES: dict[str, Sequence[str]] = dict.fromkeys((*NUMBERED, "contents"), ("a",))


class Ends:
    """A source and a target in memory, and all that is done to them in order."""

    shown = "memory"

    def __init__(self, rows: dict[str, list[Row]], **given: object) -> None:
        self.kept = rows
        self.steps: list[str] = []
        self.committed: bool | None = True
        self.change: Callable[[Row], Row] = lambda row: row
        for name, value in given.items():
            setattr(self, name, value)

    def tables(self) -> Mapping[str, Sequence[str]]:
        return {**TABLES, **dict.fromkeys(LEFT, ("x",))}

    def count(self, table: str) -> int:
        return len(self.kept.get(table, ()))

    def rows(self, table: str, columns: Sequence[str]) -> Iterator[Row]:
        return iter(self.kept.get(table, ()))

    def highest(self, table: str, column: str) -> int:
        return 7

    def write(self, table: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
        self.kept[table] = [self.change(row) for row in rows]

    def finish(self, highest: Mapping[str, int]) -> None:
        assert highest == dict.fromkeys(NUMBERED, 7)
        self.steps.append("finish")

    def mark(self, mark: Mark) -> None:
        self.steps.append(f"mark {mark.to} {mark.at}")

    def unmark(self) -> None:
        self.steps.append("unmark")

    def commit(self) -> None:
        self.steps.append("commit")
        if self.committed is not True or self.steps.count("lost"):
            raise StorageUnavailable("no answer")

    def holds_mail(self) -> bool | None:
        return self.committed

    def close(self) -> None:
        """Nothing to let go of."""


def moved(target: Ends, rows: dict[str, list[Row]] | None = None) -> tuple[Ends, Callable[[], object]]:
    source = Ends(rows or {"messages": [(1, "a\0b", b"x")], "events": [(2,), (3,)]}, steps=target.steps)
    return source, lambda: move(source, target, SteppedClock(), lambda _: None)


def test_the_source_is_marked_before_the_target_is_committed() -> None:
    target = Ends({})
    source, run = moved(target)
    run()
    assert target.steps == ["finish", f"mark memory {EPOCH}", "commit"]
    assert target.kept["events"] == source.kept["events"]
    assert target.kept["messages"] == [(1, "a\ufffdb", b"x")], "NUL as PostgreSQL can hold it"


@pytest.mark.parametrize("change", [lambda row: (*row[:-1], "other"), lambda row: (0,)])
def test_rows_that_come_out_otherwise_are_not_committed_and_the_source_is_not_marked(
    change: Callable[[Row], Row],
) -> None:
    target = Ends({}, change=change)
    _, run = moved(target)
    with pytest.raises(ConfigurationError, match="nothing was moved"):
        run()
    assert target.steps == []


def test_a_commit_that_failed_takes_the_mark_away() -> None:
    target = Ends({}, committed=False)
    _, run = moved(target)
    with pytest.raises(StorageUnavailable):
        run()
    assert target.steps[-2:] == ["commit", "unmark"]


def test_a_commit_whose_answer_alone_was_lost_is_a_move() -> None:
    target = Ends({})
    target.steps.append("lost")
    _, run = moved(target)
    run()
    assert target.steps[-1] == "commit"


def test_a_commit_that_nobody_knows_of_leaves_the_mark_and_says_so() -> None:
    target = Ends({}, committed=None)
    _, run = moved(target)
    with pytest.raises(ConfigurationError, match="Run the same command again"):
        run()
    assert target.steps[-1] == "commit"


@pytest.mark.parametrize(("fails", "holds"), [("draft", False), ("folder", None)])
def test_a_file_that_has_its_name_but_maybe_not_for_good_is_not_said_to_hold_no_mail(
    fails: str, holds: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sync(path: Path) -> None:
        if path.is_dir() == (fails == "folder"):
            raise OSError(errno.EIO, "the disk failed")

    monkeypatch.setattr(placing, "sync", sync)
    target = SQLiteTarget.open(str(tmp_path / "post.db"))
    try:
        with pytest.raises(StorageUnavailable, match="the disk failed"):
            target.commit()
        assert target.holds_mail() is holds
    finally:
        target.close()
    assert (tmp_path / "post.db").exists() == (holds is None)


def test_a_table_that_only_one_of_them_has_is_refused() -> None:
    target = Ends({})
    source, run = moved(target)
    source.tables = lambda: {**TABLES, "more": ("a",)}  # type: ignore[method-assign]
    with pytest.raises(ConfigurationError, match="the table more is not the same in both"):
        run()


def test_both_schemas_have_the_tables_and_columns_that_a_move_carries(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A step of the schema that only one dialect gets would stop every move."""
    from service.store.postgres.moving import PostgresTarget
    from service.store.sqlite.moving import SQLiteTarget

    url = shared_server().new_database()
    postgres = PostgresTarget.open(url)
    sqlite = SQLiteTarget.open(str(tmp_path_factory.mktemp("schema") / "new.db"))
    try:
        tables = [
            {name: sorted(columns) for name, columns in side.tables().items() if name not in LEFT}
            for side in (postgres, sqlite)
        ]
        owned = {
            (table, column)
            for table, columns in postgres.tables().items()
            for column in columns
            if postgres._connection.execute("SELECT pg_get_serial_sequence(%s, %s)", [table, column]).fetchone()
            != (None,)
        }
    finally:
        sqlite.close()
        postgres.close()
        shared_server().give_back(url)
    assert tables[0] == tables[1]
    assert owned == set(NUMBERED.items()), "every column that the server numbers goes on after the highest"


def test_a_step_of_another_version_stops_a_move(tmp_path_factory: pytest.TempPathFactory) -> None:
    from service.store.sqlite.moving import SQLiteSource

    path = str(tmp_path_factory.mktemp("old") / "old.db")
    migrate_file(path)
    connection = connect_writer(path)
    connection.execute("DELETE FROM schema_steps WHERE number = ?", (load_migrations("sqlite")[-1].number,))
    connection.close()
    with pytest.raises(ConfigurationError, match="run `postroom migrate` on it first"):
        SQLiteSource.open(path)
