"""Bring a PostgreSQL schema up to date: one process at a time, all steps that are due or none.

A step that is `additive` may be there although this version does not know it: so replicas of the version before go on,
and start again, while the new one is rolled out. Which steps the living ones know stands in `holders`. A process enters
that table while the schema stays as it is, and looks then for steps that it can't live with: so nobody slips in while
somebody looks who lives.
"""

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql

from service.errors import ConfigurationError, StorageUnavailable
from service.store.migrate import DUE, Outcome, Wanted, migrate
from service.store.postgres.session import check_server, check_url, sentence
from service.store.postgres.statements import Statement, statement
from service.store.queries import Migration, load_migrations

SILENT_AFTER = 60  # seconds after which a process that did not say goodbye is taken for dead
_WAIT = 60  # seconds for another process that migrates, or for a table that is in use
_REFUSED = "authentication failed"  # of passwords, peers, certificates: each method says so
_Connection = psycopg.Connection[tuple[Any, ...]]


class _Schema:
    def __init__(self, connection: _Connection, known: set[int]) -> None:
        self._connection, self._known = connection, known

    def applied(self) -> dict[int, str]:
        ((known,),) = self._connection.execute("SELECT to_regclass('schema_steps')").fetchall()
        if known is None:  # asked first, so that a role without the right to make tables can use a schema that is there
            self._connection.execute(
                "CREATE TABLE schema_steps"
                " (number integer PRIMARY KEY, checksum text NOT NULL, additive boolean NOT NULL)"
            )
        rows = self._connection.execute("SELECT number, checksum, additive FROM schema_steps").fetchall()
        return {number: checksum for number, checksum, additive in rows if number in self._known or not additive}

    def apply(self, migration: Migration) -> None:
        self._connection.execute(migration.sql.encode())
        self._connection.execute(
            "INSERT INTO schema_steps (number, checksum, additive) VALUES (%s, %s, %s)",
            (migration.number, migration.checksum, migration.additive),
        )

    def older(self, number: int) -> Sequence[str]:
        given = {"step": number, "silence": SILENT_AFTER * 1000}
        return [holder for (holder,) in _run(self._connection, statement("open: older holders", given))]


def _run(connection: _Connection, asked: Statement) -> list[tuple[Any, ...]]:
    cursor = psycopg.RawCursor(connection)
    return cursor.execute(asked.text.encode(), asked.values or None).fetchall()


def newest_step() -> int:
    """The number of the last step that this version knows."""
    return load_migrations("postgres")[-1].number


def _connect(url: str, connect_timeout: float) -> _Connection:
    """Raises psycopg.Error, and ConfigurationError where waiting mends nothing.

    libpq tells no SQLSTATE of a connection that was refused, so the server's words are looked at. One that speaks another
    language is tried again in vain, which costs time and nothing else.
    """
    try:
        return psycopg.connect(url, connect_timeout=max(int(connect_timeout), 2), prepare_threshold=None)
    except psycopg.OperationalError as error:
        missing = error.pgconn is not None and error.pgconn.needs_password
        if missing or _REFUSED in str(error):
            raise ConfigurationError(f"POSTROOM_DATABASE_URL: {sentence(error)}") from None
        raise


def migrate_database(url: str, connect_timeout: float, wanted: Wanted = DUE) -> Outcome:
    """Raises StorageUnavailable, and ConfigurationError for a server or a schema that does not fit this version, and for a
    login that is refused.
    """
    steps = load_migrations("postgres")
    check_url("DATABASE_URL", url)
    try:
        with _connect(url, connect_timeout) as connection:
            (server,) = _run(connection, statement("open: server"))
            check_server(*server)
            connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(f"{_WAIT}s"))
            _run(connection, statement("open: schema lock"))
            return migrate(_Schema(connection, {step.number for step in steps}), steps, wanted)
    except psycopg.Error as error:
        raise StorageUnavailable(f"POSTROOM_DATABASE_URL: {sentence(error)}") from None
