"""SQLite as either end of a move: a file that nobody else has open is read, or a new one is written and put in place."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import apsw

from service.errors import ConfigurationError, StorageUnavailable
from service.store.marks import COPIED, MOVED, Mark
from service.store.move import NUMBERED, Row
from service.store.queries import load_migrations
from service.store.sqlite.files import check_library, connect_writer, living, migrate_file, take_lock
from service.store.sqlite.place import identity
from service.store.sqlite.placing import free_name, place

_LOCK_WAIT = 10.0  # seconds: a service holds the lock for one commit at a time


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class _File:
    """What both ends have: a connection, and the rows of its tables."""

    def __init__(self, path: str, connection: apsw.Connection) -> None:
        self.shown = f"sqlite:///{path}"
        self._path, self._connection = path, connection

    def _ask(self, sql: str, bindings: Sequence[Any] = ()) -> list[Any]:
        try:
            return self._connection.execute(sql, bindings).fetchall()
        except apsw.Error as error:
            raise unavailable(self._path, error) from error

    def tables(self) -> Mapping[str, Sequence[str]]:
        """See move.Side."""
        names = self._ask(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        )
        return {
            name: [column for (column,) in self._ask("SELECT name FROM pragma_table_info(?)", (name,))]
            for (name,) in names
        }

    def count(self, table: str) -> int:
        """See move.Side."""
        return int(self._ask(f"SELECT count(*) FROM {_quoted(table)}")[0][0])  # noqa: S608

    def rows(self, table: str, columns: Sequence[str]) -> Iterator[Row]:
        """See move.Side."""
        listed = ", ".join(map(_quoted, columns))
        try:
            yield from self._connection.execute(f"SELECT {listed} FROM {_quoted(table)}")  # noqa: S608
        except apsw.Error as error:
            raise unavailable(self._path, error) from error


class SQLiteSource(_File):
    """See move.Source. The file lock of writers is held, and nobody lives who has the file open."""

    def __init__(self, path: str, connection: apsw.Connection, lock: int) -> None:
        super().__init__(path, connection)
        self._lock = lock

    @classmethod
    def open(cls, path: str) -> Self:
        """Raises ConfigurationError: no such file, a service has it open, its schema is another version's."""
        check_library()
        path = str(Path(path).absolute())
        if not Path(path).is_file():
            raise ConfigurationError(f"--from: there is no file {path}")
        lock = _lock(path)
        try:
            # whoever starts now shows itself first and waits for the lock next; see SQLiteStore.open
            if alive := living(path):
                raise ConfigurationError(f"--from: {path} is open in {', '.join(sorted(alive))}; stop it first")
            connection = connect_writer(path)
            source = cls(path, connection, lock)
            source._check_steps()
            source._ask("BEGIN")
        except apsw.Error as error:
            os.close(lock)
            raise unavailable(path, error) from error
        except BaseException:
            os.close(lock)
            raise
        return source

    def _check_steps(self) -> None:
        applied = {number for (number,) in self._ask("SELECT number FROM schema_steps")}
        if COPIED in applied:
            raise ConfigurationError(
                f"--from: {self._path} is a copy that `postroom backup` made and nobody has released: look at it with"
                " `postroom queue`, then `postroom queue release`"
            )
        if applied - {MOVED} != {step.number for step in load_migrations("sqlite")}:
            raise ConfigurationError(
                f"--from: the schema of {self._path} is another version's; run `postroom migrate` on it first"
            )

    def highest(self, table: str, column: str) -> int:
        """See move.Source. A table with AUTOINCREMENT remembers numbers of rows that are gone."""
        (here,) = self._ask(f"SELECT max({_quoted(column)}) FROM {_quoted(table)}")[0]  # noqa: S608
        kept = self._ask("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,))
        return max(here or 0, kept[0][0] if kept else 0)

    def mark(self, mark: Mark) -> None:
        """See move.Source."""
        self._ask("COMMIT")
        self._ask("INSERT OR REPLACE INTO schema_steps (number, checksum) VALUES (?, ?)", (MOVED, mark.text))

    def unmark(self) -> None:
        """See move.Source."""
        self._ask("DELETE FROM schema_steps WHERE number = ?", (MOVED,))

    def close(self) -> None:
        """See move.Side."""
        with contextlib.suppress(apsw.Error):
            self._connection.close()
        os.close(self._lock)


def _lock(path: str) -> int:
    """The lock that every writer takes. Raises ConfigurationError when somebody keeps it."""
    try:
        return take_lock(path, _LOCK_WAIT)
    except TimeoutError:
        raise ConfigurationError(f"--from: {path} is in use by another process; stop it first") from None


class SQLiteTarget(_File):
    """See move.Target. The file is written under another name, unsynced; the commit syncs it and puts it in place."""

    def __init__(self, path: str, connection: apsw.Connection, draft: Path) -> None:
        super().__init__(path, connection)
        self._draft = draft
        self._placed = False
        self._written: tuple[int, int] | None = None  # device and inode of the finished draft

    @classmethod
    def open(cls, path: str) -> Self:
        """Raises ConfigurationError when the file is there already."""
        path = str(Path(path).absolute())
        draft = free_name(Path(path), "--to")
        try:
            migrate_file(str(draft))
            connection = connect_writer(str(draft))
            for pragma in ("journal_mode=OFF", "synchronous=OFF"):
                connection.execute(f"PRAGMA {pragma}").fetchall()
            connection.execute("BEGIN")
        except (apsw.Error, OSError) as error:
            raise unavailable(path, error) from error
        return cls(path, connection, draft)

    def write(self, table: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
        """See move.Target."""
        listed, places = ", ".join(map(_quoted, columns)), ", ".join("?" * len(columns))
        try:
            self._connection.executemany(f"INSERT INTO {_quoted(table)} ({listed}) VALUES ({places})", rows)  # noqa: S608
        except apsw.Error as error:
            raise unavailable(self._path, error) from error

    def finish(self, highest: Mapping[str, int]) -> None:
        """See move.Target. Tables without AUTOINCREMENT go on after their highest row."""
        self._ask("INSERT INTO counters (state, count) SELECT state, count(*) FROM recipients GROUP BY state")
        kept = {name for (name,) in self._ask("SELECT name FROM sqlite_master WHERE sql LIKE '%AUTOINCREMENT%'")}
        for table in sorted(kept & NUMBERED.keys()):
            self._ask("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
            self._ask("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, highest[table]))

    def commit(self) -> None:
        """See move.Target."""
        self._ask("COMMIT")
        self._connection.close()
        try:
            self._written = identity(str(self._draft))
            place(self._draft, Path(self._path), "--to")
        except OSError as error:
            raise unavailable(self._path, error) from error
        self._placed = True

    def holds_mail(self) -> bool | None:
        """See move.Target. A file that has its name, though perhaps not durably, may be found by a service: that is no no."""
        if self._placed:
            return True
        try:
            return None if self._written == identity(self._path) else False
        except FileNotFoundError:
            return False
        except OSError:
            return None

    def close(self) -> None:
        """See move.Side."""
        with contextlib.suppress(apsw.Error):
            self._connection.close()
        for left in (self._draft, Path(f"{self._draft}-wal"), Path(f"{self._draft}-shm"), Path(f"{self._draft}.lock")):
            left.unlink(missing_ok=True)


def unavailable(path: str, error: Exception) -> StorageUnavailable:
    """What a fault of the file is to who asked."""
    return StorageUnavailable(f"{path}: {type(error).__name__}: {error}")


def unmark_file(path: str) -> bool:
    """Take the mark of a move away. False: there was none. Raises ConfigurationError, StorageUnavailable."""
    source = SQLiteSource.open(path)
    try:
        source._ask("COMMIT")
        marked = bool(source._ask("SELECT 1 FROM schema_steps WHERE number = ?", (MOVED,)))
        source.unmark()
    finally:
        source.close()
    return marked
