"""PostgreSQL as either end of a move: one transaction, in which all tables are held against writers.

Services that start meanwhile wait for the schema's lock; one that is connected already is refused by its row in `holders`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Self

import psycopg
from psycopg import sql

from service.errors import ConfigurationError, StorageUnavailable
from service.store.marks import MOVED, Mark
from service.store.move import NUMBERED, Row
from service.store.postgres.migrations import SILENT_AFTER, migrate_database
from service.store.postgres.session import check_server, sentence
from service.store.postgres.statements import statement
from service.store.queries import load_migrations

Connection = psycopg.Connection[tuple[Any, ...]]
_CONNECT_TIMEOUT, _LOCK_WAIT = 10, 10  # seconds
_BOUNDS = """
SELECT set_config('statement_timeout', '0', true), set_config('idle_in_transaction_session_timeout', '0', true),
    set_config('lock_timeout', %s, true),
    set_config('synchronous_commit', CASE WHEN current_setting('synchronous_commit') IN ('off', 'local') THEN 'on'
        ELSE current_setting('synchronous_commit') END, true)
"""
_COLUMNS = """
SELECT c.relname, a.attname, t.typname FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped JOIN pg_type t ON t.oid = a.atttypid
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace = current_schema()::regnamespace
ORDER BY c.relname, a.attnum
"""
_ALIVE = """
SELECT holder FROM holders WHERE seen_at > (extract(epoch FROM clock_timestamp()) - %s) * 1000 ORDER BY holder
"""


class _Database:
    """What both ends have: a connection within a transaction, and the rows of its tables. `end`: `--from` or `--to`."""

    def __init__(self, url: str, end: str) -> None:
        self._url, self._end = url, end
        self.shown = shown(url)
        self._connection = _connect(url, self.shown)
        self._number = 0  # of the transaction, for the server
        try:
            self._begin()
        except psycopg.Error as error:
            self._connection.close()
            raise self._unavailable(error) from error
        except BaseException:
            self._connection.close()
            raise

    def _begin(self) -> None:
        self._connection.execute(_BOUNDS, [f"{_LOCK_WAIT}s"])
        (server,) = self._connection.execute(statement("open: server").text.encode()).fetchall()
        check_server(*server)
        if not self._types:
            return
        self._connection.execute(statement("open: schema lock").text.encode())
        names = sql.SQL(", ").join(map(sql.Identifier, self._types))
        self._connection.execute(sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(names))
        alive = [holder for (holder,) in self._connection.execute(_ALIVE, [SILENT_AFTER])]
        if alive:
            raise ConfigurationError(
                f"{self._end}: {self.shown} is open in {', '.join(alive)}; stop it first, and wait {SILENT_AFTER} s if it"
                " was killed"
            )

    @cached_property
    def _types(self) -> dict[str, dict[str, str]]:
        """Tables, with the type of each column."""
        found: dict[str, dict[str, str]] = {}
        for table, column, type in self._connection.execute(_COLUMNS):
            found.setdefault(table, {})[column] = type
        return found

    def _unavailable(self, error: psycopg.Error) -> StorageUnavailable:
        return StorageUnavailable(f"{self.shown}: {sentence(error)}")

    def _ask(self, text: sql.Composed) -> tuple[Any, ...]:
        try:
            row = self._connection.execute(text).fetchone()
        except psycopg.Error as error:
            raise self._unavailable(error) from error
        assert row is not None
        return row

    def tables(self) -> Mapping[str, Sequence[str]]:
        """See move.Side."""
        return {name: tuple(columns) for name, columns in self._types.items()}

    def count(self, table: str) -> int:
        """See move.Side."""
        return int(self._ask(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table)))[0])

    def rows(self, table: str, columns: Sequence[str]) -> Iterator[Row]:
        """See move.Side."""
        types = [self._types[table][column] for column in columns]
        listed = sql.SQL(", ").join(map(sql.Identifier, columns))
        text = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT (FORMAT BINARY)").format(listed, sql.Identifier(table))
        truths = [place for place, type in enumerate(types) if type == "bool"]
        try:
            with self._connection.cursor() as cursor, cursor.copy(text) as copy:
                copy.set_types(types)
                for row in copy.rows():
                    yield _numbers(row, truths)
        except psycopg.Error as error:
            raise self._unavailable(error) from error

    def close(self) -> None:
        """See move.Side."""
        self._connection.close()


def _numbers(row: Row, truths: Sequence[int]) -> Row:
    if not truths:
        return row
    changed = list(row)
    for place in truths:
        changed[place] = int(changed[place])
    return tuple(changed)


def _connect(url: str, shown: str) -> Connection:
    try:
        return psycopg.connect(url, connect_timeout=_CONNECT_TIMEOUT, prepare_threshold=None)
    except psycopg.Error as error:
        raise StorageUnavailable(f"{shown}: {sentence(error)}") from None


def shown(url: str) -> str:
    """A URL without what may be secret. Raises ConfigurationError."""
    try:
        given = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.Error:
        raise ConfigurationError("--from, --to: not a PostgreSQL URL: postgresql://user@host/database") from None
    port = f":{given['port']}" if given.get("port") else ""
    return f"postgresql://{given.get('host', '')}{port}/{given.get('dbname', '')}"


class PostgresSource(_Database):
    """See move.Source."""

    @classmethod
    def open(cls, url: str) -> Self:
        """Raises ConfigurationError: a service has it open, its schema is another version's; StorageUnavailable."""
        source = cls(url, "--from")
        steps = {step.number for step in load_migrations("postgres")}
        if "schema_steps" not in source._types or source._steps() - {MOVED} != steps:
            source.close()
            raise ConfigurationError(
                f"--from: the schema of {source.shown} is another version's; run `postroom migrate` on it first"
            )
        return source

    def _steps(self) -> set[int]:
        return {number for (number,) in self._connection.execute("SELECT number FROM schema_steps")}

    def highest(self, table: str, column: str) -> int:
        """See move.Source."""
        kept = sql.SQL("SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence({}, {})::regclass), 0)")
        return int(self._ask(kept.format(sql.Literal(table), sql.Literal(column)))[0])

    def mark(self, mark: Mark) -> None:
        """See move.Source."""
        self._change(
            "INSERT INTO schema_steps (number, checksum, additive) VALUES (%s, %s, false)"
            " ON CONFLICT (number) DO UPDATE SET checksum = excluded.checksum",
            [MOVED, mark.text],
        )

    def unmark(self) -> None:
        """See move.Source."""
        self._change("DELETE FROM schema_steps WHERE number = %s", [MOVED])

    def _change(self, text: str, values: Sequence[Any]) -> None:
        try:
            self._connection.execute(text.encode(), values)
            self._connection.commit()
        except psycopg.Error as error:
            raise self._unavailable(error) from error


class PostgresTarget(_Database):
    """See move.Target."""

    @classmethod
    def open(cls, url: str) -> Self:
        """Raises ConfigurationError: a service has it open, or its mail was moved elsewhere; StorageUnavailable."""
        migrate_database(url, _CONNECT_TIMEOUT)
        return cls(url, "--to")

    def write(self, table: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
        """See move.Target."""
        types = [self._types[table][column] for column in columns]
        listed = sql.SQL(", ").join(map(sql.Identifier, columns))
        text = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(sql.Identifier(table), listed)
        truths = [place for place, type in enumerate(types) if type == "bool"]
        try:
            with self._connection.cursor() as cursor, cursor.copy(text) as copy:
                copy.set_types(types)
                for row in rows:
                    copy.write_row(_truths(row, truths))
        except psycopg.Error as error:
            raise self._unavailable(error) from error

    def finish(self, highest: Mapping[str, int]) -> None:
        """See move.Target."""
        try:
            self._connection.execute(
                "INSERT INTO counters (shard, state, count) SELECT 0, state, count(*) FROM recipients GROUP BY state"
            )
            for table, column in NUMBERED.items():
                if highest[table]:
                    self._connection.execute(
                        "SELECT setval(pg_get_serial_sequence(%s, %s)::regclass, %s)", [table, column, highest[table]]
                    )
        except psycopg.Error as error:
            raise self._unavailable(error) from error

    def commit(self) -> None:
        """See move.Target. The planner's statistics follow: without them it takes every table for an empty one."""
        self._number = int(self._ask(sql.SQL("SELECT pg_current_xact_id()::text").format())[0])
        try:
            self._connection.commit()
        except psycopg.Error as error:
            raise self._unavailable(error) from error
        try:
            self._connection.execute("ANALYZE")
            self._connection.commit()
        except psycopg.Error:
            return  # autovacuum does it within a minute

    def holds_mail(self) -> bool | None:
        """See move.Target: only a new connection knows."""
        try:
            with _connect(self._url, self.shown) as connection:
                found = connection.execute("SELECT pg_xact_status(%s::text::xid8)", [str(self._number)]).fetchone()
        except (psycopg.Error, StorageUnavailable):
            return None
        return {"committed": True, "aborted": False}.get(found[0]) if found else None


def _truths(row: Row, places: Sequence[int]) -> Row:
    if not places:
        return row
    changed = list(row)
    for place in places:
        changed[place] = bool(changed[place])
    return tuple(changed)


def unmark_database(url: str) -> bool:
    """Take the mark of a move away. False: there was none. Raises ConfigurationError, StorageUnavailable."""
    source = PostgresSource.open(url)
    try:
        marked = MOVED in source._steps()
        source.unmark()
    finally:
        source.close()
    return marked
